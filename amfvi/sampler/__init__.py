"""From an unnormalised log density to weighted draws and its normalising constant."""
