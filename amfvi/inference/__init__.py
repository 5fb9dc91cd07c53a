"""From a log density to a fitted mixture with a verdict."""
