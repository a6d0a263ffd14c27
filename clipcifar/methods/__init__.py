"""Classifiers on embeddings: zero-shot and the linear probe; the trained heads below."""
