"""Blocks, guarded functions, Krylov methods beside a known norm, checks, files, memory maps."""

from lprjax.numerics.memory import use_compilation_cache

__all__ = ["use_compilation_cache"]
