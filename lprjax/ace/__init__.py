"""The linear atomic cluster expansion: basis, exact rows, potential."""
