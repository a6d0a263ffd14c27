"""Classifiers on embeddings: zero-shot and the linear probe; the trained heads below.

A method returns scores: what they are worth is asked in `evaluation`. Methods of one study lie with it.
"""
