"""What a number that is off usually means: the known causes, those that fit the pattern first.

The rules rest on what each part can and cannot move. A probe on image embeddings does not know the
text tower: where it passes and zero-shot fails, the images are right. Scaling an image's embedding
changes no zero-shot prediction, but every trained head. Preprocessing and activation change both.
"""

from __future__ import annotations

from collections.abc import Sequence

from clipcifar.verify.verification import Check

LARGE = 0.03  # a fall that another resize does not explain
_CHANCE = 2.0  # times chance is as bad as knowing nothing

CLASS_ORDER = "class order: the class names stand in another order than the labels (data/classes.json)"
ACTIVATION = (
    "activation: weights trained with QuickGELU under an architecture name without it, or the reverse; "
    "both towers suffer, and accuracy falls by whole points"
)
PREPROCESSING = (
    "preprocessing: another interpolation, resize mode, mean or standard deviation than the checkpoint's "
    "(`preprocess` in data/model.json)"
)
PROMPTS = "prompts: another template, other names of classes, or another text tower or tokenizer"
UNNORMALISED = (
    "embeddings that were not normalised, another C grid, split or number of epochs: only trained heads move"
)
LEAK = "too good: test images among the train images, or weights that were trained on this dataset"
_ALL = (CLASS_ORDER, ACTIVATION, PREPROCESSING, PROMPTS, UNNORMALISED, LEAK)


def causes(checks: Sequence[Check], *, num_classes: int) -> tuple[list[str], list[str]]:
    """The causes that fit what failed, and the others.

    Args:
        checks: all comparisons of a run.
        num_classes: C.

    Returns:
        Both in the order to look at them; the first is empty where no rule fits.
    """
    totals = [check for check in checks if not check.class_name]
    text = [check for check in totals if check.method == "zero_shot"]
    heads = [check for check in totals if check.method in ("linear_probe", "mlp_probe")]
    low = [check for check in totals if not check.passed and check.difference < 0]
    fits: list[str] = []
    if any(check in text for check in low):
        if any(check in heads for check in low):
            worst = min(check.difference for check in low)
            fits += [ACTIVATION, PREPROCESSING] if worst < -LARGE else [PREPROCESSING, ACTIVATION]
        elif any(check.accuracy < _CHANCE / num_classes for check in low):
            fits.append(CLASS_ORDER)  # a probe learns the labels, whatever their classes are called
        elif heads:
            fits.append(PROMPTS)
        else:  # nothing tells the towers apart
            fits += [PROMPTS, ACTIVATION, PREPROCESSING]
    elif low:
        fits.append(UNNORMALISED)
    elif any(not check.passed and check.difference > 0 for check in totals):
        fits.append(LEAK)
    elif any(not check.passed and check.method == "zero_shot" for check in checks):
        fits.append(PROMPTS)  # classes only: their names and sentences
    return fits, [cause for cause in _ALL if cause not in fits]
