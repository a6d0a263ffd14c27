"""Test images with a twin among the train images."""
