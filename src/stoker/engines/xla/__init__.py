"""From a captured graph of ATen operators to a program for XLA, through JAX.

Importing this package imports no JAX; its modules do. ``interpret`` is the entrance.
"""

import sys
import warnings

if "jax" not in sys.modules:
    # JAX warns whoever forks a process that has it; a DataLoader's workers do not use it, and are none of its business.
    warnings.filterwarnings("ignore", message=r"os\.fork\(\) was called", category=RuntimeWarning)
