from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import yaml

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.evaluation import compare
from clipcifar.studies.corruptions.images import kinds
from clipcifar.studies.corruptions.images.generated import CORRUPTIONS
from clipcifar.studies.corruptions.images.kinds import PUBLISHED
from clipcifar.studies.corruptions.judge import naming as naming_prompts, repeated
from clipcifar.studies.corruptions.judge.naming import Right
from tests.support.import_closure import ROOT

ABOUT: dict[str, Any] = {"class_names": ["cat", "sea_dog"], "dataset": "digits"}


def test_templates_become_sentences_of_every_class_for_the_corruptions_that_are_there() -> None:
    naming = {
        "fog": ["a {classname} in fog."],
        "darkness": ["a [dark|dim] {classname}."],
        "snow": ["{classname} in snow."],
    }
    found = naming_prompts.expand(naming, ["darkness", "contrast", "fog"], **ABOUT)
    assert list(found) == ["darkness", "fog"]
    assert found["darkness"].sentences == ["a dark cat.", "a dim cat.", "a dark sea dog.", "a dim sea dog."]
    assert found["darkness"].class_index == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("naming", "reason", "where"),
    [
        ({"dakness": ["a {classname}."]}, "unknown corruption 'dakness'", "corruptions.naming"),
        ({"fog": ["a photo."]}, "does not name the class", "params.yaml: corruptions.naming.fog[0]"),
        (
            {"fog": ["ok {classname}", "{classname.__class__}"]},
            "only {classname}",
            "corruptions.naming.fog[1]",
        ),
        ({"fog": []}, "at least one entry", "corruptions.naming.fog"),
        ({"fog": "a {classname}."}, "expected a list", "corruptions.naming.fog"),
        ({"fog": None}, "expected a list", "corruptions.naming.fog"),
    ],
)
def test_a_wrong_template_is_told_by_corruption_and_index(naming: Any, reason: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        naming_prompts.expand(naming, ["fog"], **ABOUT)
    assert reason in caught.value.what
    assert caught.value.where.endswith(where)


@pytest.mark.parametrize("name", ["dakness", "xyz"])
def test_an_unknown_corruption_is_told_the_nearest_and_all_that_can_be_generated(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        naming_prompts.expand({name: ["a {classname}."]}, ["fog"], **ABOUT)
    fix = caught.value.fix
    assert fix.startswith(
        "did you mean darkness? what can be" if name == "dakness" else "what can be generated:"
    )
    generated, published = fix.rpartition("what can be generated: ")[2].split("; of published images alone: ")
    assert generated.split(", ") == list(CORRUPTIONS)
    assert published.split(", ") == [name for name in PUBLISHED if name not in CORRUPTIONS]


def test_every_corruption_that_there_is_has_a_prompt_in_the_committed_file() -> None:
    naming = yaml.safe_load((ROOT / "params.yaml").read_text())["corruptions"]["naming"]
    assert set(naming) == {*CORRUPTIONS, *PUBLISHED} == set(kinds.KNOWN)
    assert len(naming_prompts.expand(naming, kinds.KNOWN, **ABOUT)) == len(naming)


def test_the_set_that_the_search_chose_and_where_sentences_are_from() -> None:
    best = naming_prompts.searched({"template_mode": "shared", "templates": ["a {classname}."]}, **ABOUT)
    naming = naming_prompts.expand({"fog": ["foggy {classname}."]}, ["fog"], **ABOUT)
    assert naming_prompts.origins(naming, best) == {
        "a cat.": "data/ranking.json",
        "a sea dog.": "data/ranking.json",
        "foggy cat.": "params.yaml: corruptions.naming.fog",
        "foggy sea dog.": "params.yaml: corruptions.naming.fog",
    }
    kept = naming_prompts.origins(naming, None)  # where the search keeps the active set
    assert list(kept) == ["foggy cat.", "foggy sea dog."]
    other = {"template_mode": "per_class", "dataset": "cifar10", "sentences": {}}
    with pytest.raises(DataError, match="another dataset"):
        naming_prompts.searched(other, **ABOUT)


def test_each_is_judged_on_its_own_images_and_all_are_corrected_together() -> None:
    rng = np.random.default_rng(0)

    def right(share: float) -> Right:
        return Right(rng.random(300) < 0.8, rng.random((3, 300)) < share)

    active = {name: right(0.5) for name in ("fog", "snow", "frost")}
    better, same = right(0.6), active["snow"]
    classes: dict[str, Any] = {"labels": np.zeros(300, int), "class_names": ["cat"]}
    found = naming_prompts.against_active(active, {"fog": (4, better), "snow": (2, same)}, **classes)
    assert [(item.name, item.num_sentences) for item in found] == [("fog", 4), ("snow", 2)]
    assert found[0].corrupted == repeated.paired(active["fog"].corrupted, better.corrupted)
    assert found[0].clean == compare.paired(active["fog"].clean, better.clean)
    assert found[0].p_holm == pytest.approx(2 * found[0].corrupted.p_value)
    assert found[0].p_holm < 0.01
    assert found[1].p_holm == 1.0
    assert naming_prompts.against_active(active, {}, **classes) == []
