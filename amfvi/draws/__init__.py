"""Posterior draws: validated in memory, read from files, written to files."""
