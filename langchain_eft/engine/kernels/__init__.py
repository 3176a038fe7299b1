"""Kernels for CPUs, written in Python and compiled by numba: the twins of the Triton files."""
