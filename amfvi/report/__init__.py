"""Reports of runs: one page for each, and tables that compare several."""
