"""The frozen CLIP: pixels and sentences to vectors, and all that depends on the device.

Where the weights come from is in `weights`; what is embedded, and kept, in `embeddings`.
"""
