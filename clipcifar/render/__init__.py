"""What pages are made of: frame, charts, pictures, tables."""
