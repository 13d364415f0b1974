"""The version of the library, which files and records carry."""

__version__ = "0.1.0"
