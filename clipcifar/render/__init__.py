"""What pages are made of: frame, style, charts, pictures, tables.

What a page says is told in `report`, and in each study's own page.
"""
