"""The door: `clipcifar` and its commands."""
