"""The module for kernels that do not carry the series."""
