"""Every image and every sentence once: sources, shards, memo, provenance.

The towers themselves are in `backbone`, the files that result in `store.embeddings`.
"""
