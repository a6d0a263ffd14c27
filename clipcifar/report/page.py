"""The page that a person looks at: one HTML file with everything in it, which asks for nothing."""

from __future__ import annotations

from collections.abc import Mapping

from clipcifar.core.counts import count_of
from clipcifar.core.files import Attribute
from clipcifar.evaluation.names import METHODS
from clipcifar.render import frame, site
from clipcifar.render.pictures import SIDE, Pictures
from clipcifar.report import cards, confusion, sections, superclasses, verdicts
from clipcifar.report.facts import Facts
from clipcifar.report.headline import HOW, headline
from clipcifar.store.dataset import OWN_VAL, counted

SECTIONS = [
    ("use", "What to use"),
    ("verdicts", "Verdicts"),
    ("methods", "Methods"),
    ("sets", "Prompt sets"),
    ("ranking", "Ranking"),
    ("classes", "Classes"),
    ("superclasses", "Superclasses"),
    ("confusion", "Confusion"),
    ("reliability", "Reliability"),
    ("changes", "Changes"),
    ("hardest", "Hardest images"),
    ("provenance", "Provenance"),
]


def render(facts: Facts, pictures: Pictures, *, split: str, title: str | None = None) -> str:
    """The whole page as HTML.

    Args:
        facts: of the finished run.
        pictures: of the test images.
        split: one line on the train/val split.
        title: of a person's own; the dataset and the model where it is None or blank.
    """
    others = [name for name in facts.sets.scores if name != facts.active]
    n = len(facts.dataset.test.ids)
    own_title = (title or "").strip()
    families = superclasses.section(facts)
    made_of = f"{facts.dataset.name} with {facts.model.model} {facts.model.pretrained}".rstrip()
    return frame.render(
        "page.html",
        package="clipcifar.report",
        pages=site.bar(site.MAIN),
        heading=own_title or made_of,
        of_what=made_of if own_title else "",
        active=facts.active,
        compared=f"{_as_set(facts.active)} {_as_set(others[0])}" if others else "",
        side=SIDE,
        counts=f"{count_of(n, 'test image')} in {len(facts.dataset.class_names)} classes",
        small_pictures=pictures.small,
        sections=[s for s in SECTIONS if s[0] != "superclasses" or families is not None],
        headline=headline(facts),
        how_chosen=HOW,
        verdicts=_verdicts(facts),
        methods=sections.methods(facts),
        sets=sections.sets(facts),
        ranking=sections.ranking(facts),
        classes=sections.classes(facts),
        superclasses=families,
        confusions=confusion.confusions(facts),
        pairs_header=confusion.PAIRS_HEADER,
        reliabilities=sections.reliabilities(facts),
        changes=cards.changes(facts, pictures),
        hardest=cards.hardest(facts, pictures),
        provenance=_provenance(facts, split),
    )


def _as_set(name: str) -> str:
    """A prompt set's name as `clipcifar compare` takes it for one."""
    return f"set:{name}" if name in METHODS else name


def _verdicts(facts: Facts) -> list[str]:
    zero_shot = facts.metrics["zero_shot"]
    low, high = zero_shot["accuracy_ci95"]["low"], zero_shot["accuracy_ci95"]["high"]
    interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
    return [
        f"Zero-shot with {facts.active}: {100 * zero_shot['accuracy']:.1f} % {interval}.",
        *verdicts.of_sets(facts.set_differences, active=facts.active),
        verdicts.of_ranking(facts.ranking),
        *verdicts.of_methods(facts.method_differences, reference="zero_shot"),
        *verdicts.of_draws(facts.metrics),
        verdicts.of_calibration(facts.metrics),
        *verdicts.of_copies(facts.method_differences),
    ]


def _how_embedded(attributes: Mapping[str, Attribute]) -> str:
    device, precision = (str(attributes.get(name, "unknown")) for name in ("device", "precision"))
    stored = attributes.get("storage", "float32")
    return f"{device}, {precision}" + (f", stored as {stored}" if stored != "float32" else "")


def _provenance(facts: Facts, split: str) -> list[tuple[str, str]]:
    model, dataset, attributes = facts.model, facts.dataset, facts.predictions["zero_shot"].attributes
    subset = dataset.max_per_class
    return [
        ("model", f"{model.model} {model.pretrained}".rstrip()),
        ("weights from", model.source + (f", revision {model.revision}" if model.revision else "")),
        *([("settled for the weights", "; ".join(model.remarks))] if model.remarks else []),
        ("weights sha256", model.weights_sha256),
        ("dataset", dataset.name + (f", at most {count_of(subset, 'image')} per class" if subset else "")),
        ("left out", counted(dataset.left_out) or "nothing"),
        *(("of the images", note) for note in dataset.notes),
        ("dataset digest", dataset.digest),
        ("split", "val images of the dataset's own" if OWN_VAL in dataset.notes else split),
        ("embeddings", f"{attributes['images_fingerprint']} (fingerprint)"),
        ("embedded on", _how_embedded(attributes)),
        ("versions", frame.versions(attributes)),
    ]
