"""Blocks, guarded functions, Krylov methods beside a known norm, checks, files, memory maps."""
