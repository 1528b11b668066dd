"""What this machine has, what of it works, and how fast it multiplies: ``stoker doctor``.

Nothing here imports torch or another package that might be broken: that is done in processes of their own, whose end,
however it comes, is a finding.
"""
