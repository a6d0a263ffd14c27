"""The frozen CLIP: pixels and sentences to vectors, and all that depends on the device."""
