"""Maximum-likelihood training of an ensemble of flows."""
