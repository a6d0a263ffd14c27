"""The image tower unfrozen, against the frozen probe."""
