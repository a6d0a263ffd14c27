"""CLIP image classification from cached embeddings; ARCHITECTURE.md has the order of the packages."""
