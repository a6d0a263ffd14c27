"""Every image and every sentence once: sources, shards, memo, provenance."""
