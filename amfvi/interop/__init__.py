"""Conversions to and from ArviZ, Pyro and nflows; each module needs its library."""
