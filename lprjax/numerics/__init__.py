"""Blocks of items, guarded functions, Krylov methods beside a known norm, checks of numbers."""
