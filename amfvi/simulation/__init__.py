"""Simulations of parameters and simulated data, from a prior and a user's simulator."""
