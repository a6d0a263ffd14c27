"""Where corrupted images come from: generated here, or the published arrays."""
