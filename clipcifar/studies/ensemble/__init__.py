"""Zero-shot mixed with each trained method."""
