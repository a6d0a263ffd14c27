"""The main page: what it is about is read once (`facts`), then put into sections, galleries and verdicts.

Its parts that pages of studies have too are in `render`.
"""
