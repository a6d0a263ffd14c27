"""Several backbones on the same images."""
