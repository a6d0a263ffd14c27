"""Is everything that results rest on there, and unharmed? All is read, nothing is changed.

Each problem comes with the command that mends it; what DVC knows is asked of `project`.
"""
