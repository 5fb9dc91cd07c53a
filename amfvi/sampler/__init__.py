"""Tempered sequential Monte Carlo: from an unnormalized log density to draws and log Z."""
