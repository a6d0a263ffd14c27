"""The same door for Python: a finished project, opened from any folder, and checked as the commands check it.

Nothing here asks for the current directory, or changes it.
"""
