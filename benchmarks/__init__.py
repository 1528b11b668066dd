"""Stoker beside its peers: same data, same network, same first weights, same number of steps; ``make bench``.

jobs.py       what is trained: data, networks as shapes of weights, rates
sides/        who trains it: one peer a file
plan.py       which side runs which job, how often and for how many epochs
measure.py    one measurement, in a process of its own
summary.py    measurements → figures;  bars.py: figures → wanted ratios, met or not
report.py     results → Markdown, with picture.py
run.py        the command
"""
