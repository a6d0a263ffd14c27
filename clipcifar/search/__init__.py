"""Prompts chosen on train and val; test is asked once, about the one that was chosen.

Prompts that a person tries by hand are scored in `cli`.
"""
