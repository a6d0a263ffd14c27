"""CLIP image classification from cached embeddings."""
