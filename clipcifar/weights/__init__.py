"""Any source of weights to one folder in open_clip's format, described."""
