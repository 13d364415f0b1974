"""Sparse kernel models and neural networks: the same rigidities."""
