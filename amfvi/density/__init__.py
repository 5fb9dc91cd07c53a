"""A user's unnormalized log density: vectorized, checked and counted."""
