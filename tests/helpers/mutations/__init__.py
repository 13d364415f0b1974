"""Wrong lines, one at a time, which tests are to notice: `python -m tests.helpers.mutations`."""
