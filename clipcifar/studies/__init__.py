"""Further questions on the same embeddings, a package each; none imports another."""
