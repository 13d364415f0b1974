"""The figures: one module each, run as `python -m experiments.<figure> --preset smoke|paper`."""
