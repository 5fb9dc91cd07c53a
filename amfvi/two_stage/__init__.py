"""The two-stage method of AMF-VI: experts fitted alone, then global weights."""
