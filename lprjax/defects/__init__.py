"""Defects on their reference lattice: response, bounds, budgets."""
