"""What everything rests on: errors a person can act on, settings, bytes on disk, progress, locks."""
