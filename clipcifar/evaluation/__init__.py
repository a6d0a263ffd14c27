"""Scores to numbers, numbers against numbers, and both in words."""
