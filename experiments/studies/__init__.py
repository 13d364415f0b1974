"""Computations that several figures share."""
