"""Conditional mixtures: every posterior p(y | c) from one fit to pairs (c, y)."""
