"""The materials and cells of the figures."""
