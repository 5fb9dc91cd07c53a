"""What studies and benchmarks share; no module here is run by itself."""
