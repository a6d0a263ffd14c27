"""What everything rests on: errors a person can act on, settings, bytes on disk, progress, locks.

It imports no other package. Each section of params.yaml has its dataclass beside what reads it, not here.
"""
