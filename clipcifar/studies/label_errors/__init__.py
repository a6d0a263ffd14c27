"""Labels that no method believes."""
