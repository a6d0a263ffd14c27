"""Templates of params.yaml to one list of sentences per class."""
