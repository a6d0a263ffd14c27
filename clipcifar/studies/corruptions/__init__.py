"""Robustness: every method on corrupted test images, and prompts that name the corruption."""
