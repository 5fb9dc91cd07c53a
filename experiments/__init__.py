"""Studies, benchmarks and timings of amfvi; run from a checkout, not installed."""
