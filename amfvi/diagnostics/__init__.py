"""Diagnostics of a fit to a log density, and the verdict they lead to."""
