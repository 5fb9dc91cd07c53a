"""Runs: a fit written to a directory, and read back."""
