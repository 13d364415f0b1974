"""Structures, graphs of neighbours, files."""
