"""What DVC and git know of this project: its outputs, its lock, cached objects, revisions.

No other package imports dvc. Whether what lies there is unharmed is asked by `doctor`.
"""
