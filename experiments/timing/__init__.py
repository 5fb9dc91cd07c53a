"""Where the time of a fit goes, and how fast frozen densities are."""
