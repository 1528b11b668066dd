"""From a captured graph of ATen operators to a program for XLA, through JAX. ``interpret`` is the entrance.

Importing this package imports JAX, which takes its time: who may do without it imports it late.
"""

import sys
import warnings

from stoker.engines.collection import collected_later

if "jax" not in sys.modules:
    # JAX warns whoever forks a process that has it; a DataLoader's workers do not use it, and are none of its business.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
    with collected_later():
        import jax  # noqa: F401
