"""What the corruptions are called, and which of them the published means are over.

The benchmark of Hendrycks and Dietterich ("Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", ICLR 2019, https://arxiv.org/abs/1903.12261) has 15 corruptions, and
its mean is over those. Four more came with it, for validation, and are in no published mean.
"""

from __future__ import annotations

from collections.abc import Iterable

from clipcifar.core.counts import count_of

BENCHMARK = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
EXTRAS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
PUBLISHED = (*BENCHMARK, *EXTRAS)  # in the order of the paper
OWN = ("darkness", "desaturate")  # nobody else's
KNOWN = (*PUBLISHED, *OWN)  # in the order to show them

# What a mean can be over. The first that has a corruption is the one that methods are compared by.
MEANS = {"benchmark": BENCHMARK, "with_extras": PUBLISHED, "own": OWN}

WHOSE = {"benchmark": "of the 15", "extra": "as an extra", "own": "no: own"}


def kind(name: str) -> str:
    """Whose corruption it is: of the benchmark, an extra of it, or our own."""
    return "benchmark" if name in BENCHMARK else "extra" if name in EXTRAS else "own"


def means_over(names: Iterable[str]) -> dict[str, list[str]]:
    """By key of `MEANS`, those of some corruptions that the mean is over.

    A mean over nothing is left out, and one with extras where there is no extra: it would be the first again.
    """
    asked = list(names)
    chosen = {key: [name for name in asked if name in members] for key, members in MEANS.items()}
    if chosen["with_extras"] == chosen["benchmark"]:
        del chosen["with_extras"]
    return {key: members for key, members in chosen.items() if members}


def said(key: str, count: int) -> str:
    """What a mean over `count` corruptions is over, in words.

    >>> said("benchmark", 15), said("benchmark", 14)
    ("the benchmark's 15 corruptions", "14 of the benchmark's 15 corruptions")
    """
    if key == "own":
        return f"{count_of(count, 'corruption')} of our own"
    if key == "benchmark":
        whole = f"the benchmark's {len(BENCHMARK)} corruptions"
        return whole if count == len(BENCHMARK) else f"{count} of {whole}"
    if count == len(PUBLISHED):
        return f"the benchmark's {len(BENCHMARK)} corruptions and its {len(EXTRAS)} extras"
    return f"{count} of the benchmark's {len(PUBLISHED)} corruptions and extras"


def short(key: str, count: int) -> str:
    """The same for the head of a table.

    >>> short("benchmark", 14), short("with_extras", 19)
    ('mean of 14 of 15', 'mean of 19')
    """
    of = f"{count}" if count == len(MEANS[key]) else f"{count} of {len(MEANS[key])}"
    return f"mean of {of}{' own' if key == 'own' else ''}"
