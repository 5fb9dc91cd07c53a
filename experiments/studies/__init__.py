"""One question per file; each is run as ``python -m experiments NAME``."""
