"""The methods of the main pipeline: their stage names, in the order to show, and what a person calls them."""

from __future__ import annotations

METHODS = {
    "zero_shot": "zero-shot",
    "rank_prompts": "zero-shot with best prompts",
    "prompt_weighting": "zero-shot with weighted prompts",
    "gda": "GDA",
    "linear_probe": "linear probe",
    "mlp_probe": "MLP probe",
    "projection": "projection heads",
}
LEARNING = tuple(name for name in METHODS if name != "zero_shot")  # from train images, and choosing by val
TRAINED = ("linear_probe", "mlp_probe", "projection")  # step by step, on train labels
HEADS = ("prompt_weighting", "gda", *TRAINED)  # those with a classifier in data/heads
SEEDED = ("mlp_probe", "projection")  # those that another seed would train to another head
