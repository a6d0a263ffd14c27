"""Templates of params.yaml to one list of sentences per class; the pool to search, and sets saved.

Sentences become vectors in `embeddings`; which of them are good is asked in `search`.
"""
