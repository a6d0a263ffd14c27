"""Published accuracies, as they were printed, and what each was measured with.

Figures are text, because how many digits were printed says how far they can be off. All are top-1 on
the official test split, in [0, 1]. In the table of methods the total 0.936 is not the mean of its
classes (0.9368), and the linear probe's classes are no whole thousandths, so they cannot be shares
of 1,000 images (precision, perhaps): both stand as printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipcifar.core.counts import count_of
from clipcifar.core.errors import ConfigError
from clipcifar.store.model import known_as

METHOD_TABLE = "published table of methods, 45,000/5,000 train/val"
OPEN_CLIP = "open_clip results table (docs/openclip_results.csv)"
CLIP_BENCHMARK = "CLIP benchmark"
OTHERS = "published by others for the same weights"
OURS = "ours, of the stand-in: not of CLIP"


@dataclass(frozen=True)
class Reference:
    """One published accuracy, with those within the classes where they were printed too.

    Attributes:
        method: a stage name; "zero_shot" stands beside the set with the same sentences.
        accuracy: the figure as printed, or both ends of a range.
        source: where it stands.
        prompts: the set it was measured with, written as in params.yaml; empty where no text is used.
        per_class: figures as printed, by class name.
        setting: what else tells it from another number of the same method, such as "10 images a class".
    """

    method: str
    accuracy: tuple[str, ...]
    source: str
    prompts: Mapping[str, Any] = field(default_factory=dict)
    per_class: Mapping[str, str] = field(default_factory=dict)
    setting: str = ""


def _shared(*templates: str) -> dict[str, Any]:
    return {"template_mode": "shared", "templates": list(templates)}


def _by_class(figures: str) -> dict[str, str]:
    return dict(zip(_CIFAR10, figures.split(), strict=True))


_CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PHOTO = _shared("a photo of a {classname}.")
SCENES: dict[str, Any] = {
    "template_mode": "per_class",
    "dataset": "cifar10",
    "sentences": {
        "airplane": ["an airplane is flying."],
        "automobile": ["a car driving on the road."],
        "bird": ["a photo of a bird."],
        "cat": ["a photo of a cat."],
        "deer": ["a photo of a deer."],
        "dog": ["a photo of a dog."],
        "frog": ["a photo of a frog."],
        "horse": ["a horse in a field."],
        "ship": ["a ship sailing on the sea."],
        "truck": ["a truck on the highway."],
    },
}
# Both tools use the CIFAR templates of github.com/openai/CLIP, data/prompts.md, for either CIFAR set.
CIFAR18 = _shared(
    "a photo of [a|the] {classname}.",
    "a [blurry|black and white|low contrast|high contrast|bad|good] photo of [a|the] {classname}.",
    "a photo of [a|the] [small|big] {classname}.",
)

_METHODS = [
    Reference(
        "zero_shot",
        ("0.936",),
        METHOD_TABLE,
        PHOTO,
        _by_class(".9530 .9800 .8990 .8510 .9160 .9220 .9290 .9860 .9510 .9810"),
    ),
    Reference(
        "zero_shot",
        ("0.9237",),
        METHOD_TABLE,
        SCENES,
        _by_class(".8870 .9830 .8990 .8570 .9150 .9320 .9320 .9110 .9500 .9710"),
    ),
    Reference("zero_shot", ("0.9358",), OPEN_CLIP, CIFAR18),
    Reference("zero_shot", ("0.9351",), CLIP_BENCHMARK, CIFAR18),
    Reference(
        "linear_probe",
        ("0.964",),
        METHOD_TABLE,
        per_class=_by_class(".9750 .9841 .9616 .9127 .9553 .9254 .9711 .9760 .9890 .9909"),
    ),
    Reference("linear_probe", ("0.9560", "0.9691"), f"{OTHERS}, nine settings"),
    Reference("linear_probe", ("0.9337",), OTHERS, setting="10 images a class"),
    Reference(
        "mlp_probe",
        ("0.968",),
        METHOD_TABLE,
        per_class=_by_class(".9880 .9930 .9480 .9290 .9630 .9360 .9790 .9750 .9910 .9790"),
    ),
    Reference(
        "projection",
        ("0.967",),
        METHOD_TABLE,
        PHOTO,
        _by_class(".9810 .9930 .9550 .9260 .9690 .9310 .9720 .9770 .9900 .9760"),
    ),
]
_STAND_IN = [
    Reference(
        "zero_shot",
        ("0.9421",),
        OURS,
        _shared("the digit {classname}.", "a clear scan of the digit {classname}."),
    ),
    Reference("zero_shot", ("0.8892",), OURS, _shared("{classname}")),
    Reference("zero_shot", ("0.9421",), OURS, CIFAR18),
    Reference("linear_probe", ("0.9773",), OURS),
    Reference("mlp_probe", ("0.9723",), OURS),
]

Key = tuple[str, str, str]  # dataset, model, pretrained tag


def _zero_shot(cifar10: str, cifar100: str, model: str, tag: str, source: str) -> dict[Key, list[Reference]]:
    return {
        (dataset, model, tag): [Reference("zero_shot", (accuracy,), source, CIFAR18)]
        for dataset, accuracy in (("cifar10", cifar10), ("cifar100", cifar100))
    }


_LAION = ("ViT-B-32", "laion2b_s34b_b79k")
REFERENCES: dict[Key, list[Reference]] = {
    ("cifar10", *_LAION): _METHODS,
    ("cifar100", *_LAION): [
        Reference("zero_shot", ("0.7555",), OPEN_CLIP, CIFAR18),
        Reference("linear_probe", ("0.8599",), OTHERS),
    ],
    # Those weights need QuickGELU, which the plain architecture name does not have.
    **_zero_shot("0.8983", "0.6423", "ViT-B-32-quickgelu", "openai", OPEN_CLIP),
    **_zero_shot("0.9561", "0.8031", "ViT-B-32", "datacomp_xl_s13b_b90k", OPEN_CLIP),
    **_zero_shot("0.9518", "0.7767", "ViT-B-32-quickgelu", "metaclip_fullcc", OTHERS),
    **_zero_shot("0.9653", "0.8287", "ViT-B-32-256", "datacomp_s34b_b86k", OPEN_CLIP),
    **_zero_shot("0.9846", "0.8773", "EVA02-B-16", "merged2b_s8b_b131k", OPEN_CLIP),
    ("digits", "local-dir:data/demo/clip", ""): _STAND_IN,
}


def of(dataset: str, model: str, pretrained: str, max_per_class: int) -> list[Reference]:
    """What is published for a run; ConfigError where nothing can stand beside it.

    Args:
        dataset, model, pretrained: as params.yaml names them, the empty text for no tag.
        max_per_class: the subset that was asked for, 0 for all images.
    """
    label = f"{dataset} with {model} {pretrained}".rstrip()
    references = REFERENCES.get((dataset, *known_as(model, pretrained)))
    if references is None:
        known = "; ".join(" ".join(key).rstrip() for key in REFERENCES)
        raise ConfigError(
            f"no number is published here for {label}",
            where="params.yaml: dataset, model",
            fix=f"run one of: {known}",
        )
    if max_per_class:
        raise ConfigError(
            f"this run is of at most {count_of(max_per_class, 'image')} per class, published numbers of all",
            where="params.yaml: dataset.max_per_class",
            fix="set it to null and run `dvc repro`",
        )
    return references
