"""Scores to numbers, numbers against numbers, and both in words.

It knows scores and labels, not how a method came to them; tables and charts are in `render`.
"""
