"""Rows, factors, fits, rigidities, posteriors, and the choice of data."""
