"""The image tower with gradients and what trains it; no test label is read here."""
