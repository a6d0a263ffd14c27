"""What DVC and git know of this project: its outputs, its lock, cached objects, revisions."""
