"""The figures: one module each, run as `python -m experiments.<figure> --preset smoke|paper`."""

import os

# LAPACK's own threads wait for each other in every small factorisation: on a machine with other
# work that was seen to cost a factor of 500. JAX's threads are not touched.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# XLA warns at every function it loads from the persistent cache on the CPU, even on the machine
# that compiled it: it looks for its own tuning preferences among the processor's features
# (openxla/xla#44565). Errors of programs are exceptions and stay.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
