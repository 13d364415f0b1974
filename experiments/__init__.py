"""The figures: one module each, run as `python -m experiments.<figure> --preset smoke|paper`."""

import os

# LAPACK's own threads wait for each other in every small factorisation: on a machine with other
# work that was seen to cost a factor of 500. JAX's threads are not touched.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
