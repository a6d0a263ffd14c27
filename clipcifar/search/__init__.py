"""Prompts chosen on train and val; test is asked once."""
