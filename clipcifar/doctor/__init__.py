"""Is everything that results rest on there, and unharmed?"""
