"""Further questions on the same embeddings, a package each; none imports another.

Their scripts stand beside their pipelines, in the top-level folder of the same name.
"""
