"""Five lessons to read and to run: `python -m experiments.tutorials.1_fit_and_ask`."""
