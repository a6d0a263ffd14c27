"""What a person, or an enemy, can write into params.yaml, through the stages that read it."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages import (
    download,
    embed_images,
    embed_pool,
    embed_texts,
    fetch_model,
    gda,
    linear_probe,
    mlp_probe,
    prepare,
    projection,
    prompts,
    rank_prompts,
    report,
)
from studies.corruptions import embed
from studies.ensemble import stage as ensemble
from studies.few_shot import stage as few_shot
from studies.finetune import train
from studies.label_errors import stage as label_errors
from studies.models import stage as models
from studies.near_duplicates import stage as near_duplicates
from tests.support import stage_runs
from tests.support.import_closure import ROOT
from tests.support.stage_runs import Ended

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
SCENES = {name: [f"a {name} outside."] for name in CIFAR}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose prompts stage has run once; every test writes a params.yaml of its own."""
    folder = tmp_path_factory.mktemp("w")
    (folder / "classes.json").write_text(json.dumps({"dataset": "cifar10", "class_names": CIFAR}))
    stage_runs.write_params(folder, {})
    assert _prompts(folder).code == 0
    return folder


def _prompts(folder: Path) -> Ended:
    return stage_runs.run(prompts.main, "classes.json", "prompts", folder=folder)


def _refused(folder: Path, *expected: str) -> str:
    """The prompts stage ends with 2, one message and no other output, and leaves the last good sets alone."""
    before = {path.name: path.read_bytes() for path in (folder / "prompts").iterdir()}
    started = time.process_time()
    ended = _prompts(folder)
    assert time.process_time() - started < 5
    assert ended.code == 2, (ended, expected)
    assert ended.output == ""
    assert ended.error.startswith("error: ")
    assert len(ended.error) < 4000
    assert "where: params.yaml" in ended.error
    for part in expected:
        assert part in ended.error, (part, ended.error)
    assert {path.name: path.read_bytes() for path in (folder / "prompts").iterdir()} == before
    return ended.error


def _with_set(folder: Path, values: Any) -> None:
    sets = {"good": {"template_mode": "shared", "templates": ["a {classname}."]}, "mine": values}
    stage_runs.write_params(folder, {"prompts": {"active": "good", "sets": sets}})


def _with_template(folder: Path, template: Any) -> None:
    _with_set(folder, {"template_mode": "shared", "templates": ["a fine {classname}.", template]})


WRITE_PLACEHOLDER = "write {classname} where the class name belongs"
CLOSE = "each [ closed by a ]"


@pytest.mark.parametrize(
    ("template", "fix"),
    [
        ("a photo of a {}.", WRITE_PLACEHOLDER),
        ("a photo of a {0}.", WRITE_PLACEHOLDER),
        ("a photo of a {classnam}.", WRITE_PLACEHOLDER),
        ("a photo of a {Classname}.", WRITE_PLACEHOLDER),
        ("a photo of a { classname }.", WRITE_PLACEHOLDER),
        ("a photo of a {{classname}}.", WRITE_PLACEHOLDER),
        ("a photo of a {classname.__class__}.", WRITE_PLACEHOLDER),
        ("a photo of a {classname.__class__.__mro__[1]}.", WRITE_PLACEHOLDER),
        ("a photo of a {classname:>200000000}.", WRITE_PLACEHOLDER),
        ("a photo of a {classname!r}.", WRITE_PLACEHOLDER),
        ("a photo of a {classname}}.", WRITE_PLACEHOLDER),
        ("a photo of a {classname.", WRITE_PLACEHOLDER),
        ("a photo of a classname}.", WRITE_PLACEHOLDER),
        ("a {class[n|m]ame}.", WRITE_PLACEHOLDER),
        ("a photo of a cat.", WRITE_PLACEHOLDER),
        ("a [photo of a {classname}|photo].", WRITE_PLACEHOLDER),
        ("a photo of a %s.", WRITE_PLACEHOLDER),
        ("a [good photo of a {classname}.", CLOSE),
        ("a good] photo of a {classname}.", CLOSE),
        ("a [good|[very] bad] photo of a {classname}.", CLOSE),
        ("]a {classname}[", CLOSE),
        ("[a|b]" * 40 + " {classname}", "[a|b]"),
    ],
)
def test_only_the_placeholder_is_substituted(folder: Path, template: str, fix: str) -> None:
    _with_template(folder, template)
    _refused(folder, "where: params.yaml: prompts.sets.mine.templates[1]", fix)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("", "the sentence is empty"),
        ("   ", "the sentence is empty"),
        (" \n\t", "the sentence is empty"),
        ("\u2003\u00a0", "the sentence is empty"),
        (None, "a sentence must be text, found None"),
        (7, "a sentence must be text, found 7"),
        (True, "a sentence must be text, found True"),
        (["a {classname}."], "a sentence must be text"),
        ({"classname": None}, "a sentence must be text"),  # what an unquoted {classname} is to YAML
        ("a\0 {classname}.", "control character"),
        ("a\x1b[2J {classname}.", "control character"),
        ("a fine {classname}.", "occurs here and in params.yaml: prompts.sets.mine.templates[0]"),
        ("a  fine\u00a0{classname}.", "occurs here and in params.yaml: prompts.sets.mine.templates[0]"),
        ("[a|a] dull {classname}.", "occurs twice here"),
        ("[|a {classname}]", "does not name the class"),
        ("a {classname} <end_of_text> b", "a mark of the tokenizer"),
        ("a {classname} " + "x" * 5000, "longer than 5,000 characters"),
        ("{classname}" * 450, "over 5,000 characters"),
    ],
)
def test_what_is_no_sentence_of_its_own_is_refused_by_set_and_index(
    folder: Path, template: Any, expected: str
) -> None:
    _with_template(folder, template)
    _refused(folder, "where: params.yaml: prompts.sets.mine.templates[1]", expected)


def test_sentences_that_are_one_after_unicode_normalisation_are_duplicates(folder: Path) -> None:
    templates = ["a caf\u00e9 {classname}.", "a {classname}.", "a cafe\u0301 {classname}."]
    _with_set(folder, {"template_mode": "shared", "templates": templates})
    _refused(folder, "where: params.yaml: prompts.sets.mine.templates[2]", "sets.mine.templates[0]")


def test_emoji_right_to_left_and_other_scripts_are_recorded_as_they_are(folder: Path) -> None:
    templates = ["a 😀 {classname}.", "صورة {classname}.", "\u202ea {classname}\u202c.", "写真 {classname}"]
    _with_set(folder, {"template_mode": "shared", "templates": templates})
    assert _prompts(folder).code == 0
    written = json.loads((folder / "prompts/mine.json").read_text(encoding="utf-8"))
    assert written["sentences"][:4] == [text.replace("{classname}", "airplane") for text in templates]
    assert written["origins"][:4] == [f"templates[{i}]" for i in range(4)]


@pytest.mark.parametrize(
    ("sentences", "expected"),
    [
        ({**SCENES, "aeroplane": ["x"]}, ["unknown class 'aeroplane'", "did you mean airplane?"]),
        ({**SCENES, "Cat": ["x"]}, ["unknown class 'Cat'", "did you mean cat?"]),
        ({**SCENES, "zebra": ["x"]}, ["unknown class 'zebra'", "use one of: airplane, automobile"]),
        (
            {k: v for k, v in SCENES.items() if k != "deer"},
            ["the class 'deer' has no sentences", "add deer:"],
        ),
        ({**SCENES, "deer": []}, ["sentences.deer", "at least one entry"]),
        ({**SCENES, "deer": None}, ["sentences.deer", "at least one entry"]),
        ({**SCENES, "deer": "a deer."}, ["sentences.deer", "at least one entry"]),
        ({**SCENES, "deer": ["a deer.", " "]}, ["sentences.deer[1]", "the sentence is empty"]),
        ({**SCENES, "deer": ["a deer.", "a {deer}."]}, ["sentences.deer[1]", WRITE_PLACEHOLDER]),
        (
            {**SCENES, "deer": SCENES["cat"]},
            ["sentences.deer[0]", "'cat' and 'deer' have the same sentences", "sentences.cat[0]"],
        ),
        ([], ["expected a mapping of class to sentences"]),
    ],
)
def test_a_set_by_class_has_every_class_and_no_other(
    folder: Path, sentences: Any, expected: list[str]
) -> None:
    _with_set(folder, {"template_mode": "per_class", "dataset": "cifar10", "sentences": sentences})
    _refused(folder, "where: params.yaml: prompts.sets.mine.sentences", *expected)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("  active: photo", "  actve: photo", ["unknown key 'actve'", "did you mean active?"]),
        ("  active: photo", "", ["the key 'active' is missing", "add active"]),
        ("active: photo", "active: phot", ["params.yaml: prompts.active", "did you mean photo?"]),
        ("active: photo", "active: [photo]", ["prompts.active is ['photo'] (list), expected text"]),
        ("active: photo", "active: true", ["prompts.active is True (bool), expected text"]),
        ("active: photo", "active: yes # or no", ["there is no prompt set 'yes'"]),
        ("active: photo", "active:", ["prompts.active is None (NoneType), expected text"]),
        ("  active: photo", "  active: photo\n  active: photo", ["the key 'active' is given twice"]),
        ("split:\n", "splits:\n", ["unknown section 'splits'", "did you mean split?"]),
        ("split:\n", "split:\n  seed: 1\n", ["the key 'seed' is given twice"]),
        ("  val_fraction: 0.1", "  val_fraction: .nan", ["different YAML readers", "line"]),
        ("  val_fraction: 0.1", "  val_fraction: 0o7", ["different YAML readers"]),
        (
            "  val_fraction: 0.1",
            "  val_fraction: !!python/object:os.system x",
            ["!!python/object", "the tag"],
        ),
        ("  val_fraction: 0.1", "  val_fraction: !!python/object/apply:os.system [x]", ["the tag"]),
        ("  val_fraction: 0.1", "  val_fraction: &a [*a]", ["contains itself"]),
        ("  val_fraction: 0.1", "  <<: {val_fraction: 0.1}", ["different"]),
        ("  val_fraction: 0.1", "  1: 2", ["the key '1' is not text"]),
        ("  val_fraction: 0.1", "\tval_fraction: 0.1", ["not valid YAML", "line"]),
        ("  val_fraction: 0.1", "  val_fraction: 2024-01-01", ["different YAML readers"]),
        ("template_mode: per_class", "template_mode: perclass", ["'perclass'", "use shared or per_class"]),
        ("  wide:  ", "  a.b:  ", ["may hold only ASCII letters, digits, _ and -"]),
        ("  wide:  ", f"  {'a' * 101}:  ", ["digits, _ and -, 100 of them"]),
    ],
)
def test_a_wrong_edit_is_refused_by_key_and_expectation(
    folder: Path, old: str, new: str, expected: list[str]
) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert text.count(old) >= 1
    (folder / "params.yaml").write_text(text.replace(old, new, 1))
    _refused(folder, *expected)


def _bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (_bomb(), "expands to more than"),
        ("[" * 50_000, "cannot read"),
        ("x: " + "y" * 2_000_000, "larger than 1,000,000 characters"),
        ("", "not a mapping of sections"),
        ("- a", "not a mapping of sections"),
        ("prompts: {", "not valid YAML"),
        ("%YAML 1.1\n---\na: 1", "YAML version"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
        ("a: \udcff", "cannot read"),
    ],
)
def test_a_file_that_is_a_weapon_is_refused_in_time(folder: Path, text: str, expected: str) -> None:
    (folder / "params.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    _refused(folder, expected)


# Every section, wrong in every way, read by the first stage that reads it.
READERS: dict[str, tuple[Callable[..., None], tuple[str, ...]]] = {
    "dataset": (download.main, ("raw",)),
    "split": (prepare.main, ("raw", "d.h5", "s.h5", "c.json")),
    "model": (fetch_model.main, ("weights", "model.json")),
    "embed": (embed_images.main, ("raw", "d.h5", "weights", "model.json", "images")),
    "search": (rank_prompts.main, tuple(f"{i}.h5" for i in range(11))),
    "gda": (gda.main, ("i.h5", "t", "s.h5", "head.h5", "p.h5", "m.json", "details/m.json", "plots")),
    "linear_probe": (
        linear_probe.main,
        ("i.h5", "s.h5", "head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    "mlp_probe": (mlp_probe.main, ("i.h5", "s.h5", "head.h5", "p.h5", "m.json", "details/m.json", "plots")),
    "projection": (
        projection.main,
        ("i.h5", "t", "s.h5", "head.h5", "p.h5", "m.json", "details/m.json", "plots"),
    ),
    **{
        section: (main, tuple(f"{i}.h5" for i in range(len(inspect.signature(main).parameters) - 1)))
        for section, main in {
            "few_shot": few_shot.main,
            "ensemble": ensemble.main,
            "models": models.main,
            "label_errors": label_errors.main,
            "near_duplicates": near_duplicates.main,
            "corruptions": embed.main,
            "finetune": train.main,
            "report": report.main,
        }.items()
    },
}
TYPES: dict[str, tuple[str, list[Any]]] = {
    "dataset.name": ("", [3, None, True, ["cifar10"]]),
    "dataset.max_per_class": ("", ["100", 1.5, True, 0, -3]),
    "dataset.seed": ("", [True, -1, 2**63, "0", None]),
    "dataset.on_bad_image": ("one of error, skip", ["ignore", True, None, "Error"]),
    "split.val_fraction": ("", ["0.1", True, None, 0, 1, -0.1, 1e400, [0.1]]),
    "split.seed": ("", [0.5, "x", None]),
    "model.name": ("", [None, 7, False]),
    "model.pretrained": ("", [7, True, ["x"]]),
    "model.allow_pickle": ("true or false", ["true", 1, 0, None, "no"]),
    "model.preprocess": ("text or a mapping", [7, True, ["x"], 0.5]),
    "embed.device": ("one of auto, cuda, mps, cpu", ["gpu", 0, True, None]),
    "embed.precision": ("one of fp32, bf16, fp16", ["fp8", 32, None]),
    "embed.batch_size": ("", [0, -1, 65_536, 1.5, "256", True, None]),
    "embed.storage": ("one of float32, float16", ["float64", 16, None]),
    "embed.workers": ("", [-1, 0.5, "4", False]),
    "report.title": ("expected text", [3, True, ["a"], {"a": 1}]),
    "search.by": ("one of accuracy, balanced_accuracy", ["balanced", True, None, ["accuracy"]]),
    "gda.alphas": ("", [[], 1, ["1"], [True], [-1], [0, 0], [1e400], None]),
    "linear_probe.c_grid": ("", [[], 1, "1", [1, "2"], [True], [0], [1e400], [None], {"a": 1}]),
    "few_shot.shots": ("", [[], 1, ["4"], [True], [0], [1.5], None]),
    "few_shot.max_iter": ("", [0, 1.5, "9", True, None]),
    "ensemble.steps": ("", [0, 0.5, "10", True, None]),
    "label_errors.folds": ("", [1, 2.5, "5", True, None]),
    "label_errors.planted": ("", ["0.1", True, None, -0.1, 1e400]),
    "near_duplicates.threshold": ("", ["0.9", True, None, 1e400, [0.9]]),
    "corruptions.severities": ("", [[], 3, ["1"], [0], [6], [True], None]),
    "finetune.unfrozen_blocks": ("", [-1, 1.5, "2", True]),
    "finetune.flip": ("one of", ["both", True, None]),
    "linear_probe.max_iter": ("", [0, 1.5, "9", True, None]),
    "mlp_probe.hidden": ("", [0, 1.5, "512", True]),
    "mlp_probe.dropout": ("", [1, -0.1, "0.2", True, None]),
    "mlp_probe.learning_rate": ("", [0, -1, "1e-3", True, 1e400]),
    "mlp_probe.seeds": ("", [[], 3, [0, 0], [True], [0.5], ["0"], [-1], [2**63]]),
    "mlp_probe.device": ("one of auto, cuda, mps, cpu", ["tpu"]),
    "projection.max_epochs": ("", [0, 2.5, "60", True, None]),
    "projection.patience": ("", [0, True, None]),
}


def _committed() -> Any:
    return yaml.safe_load((ROOT / "params.yaml").read_text())


@pytest.mark.parametrize("key", TYPES)
def test_a_value_of_another_type_or_beyond_its_bounds_is_refused_by_its_key(key: str, folder: Path) -> None:
    section, name = key.split(".")
    main, paths = READERS[section]
    expectation, values = TYPES[key]
    for value in values:
        settings = _committed()
        settings[section][name] = value
        # JSON is YAML; Python's writer would give a tag, or quotes that no person writes.
        (folder / "params.yaml").write_text(json.dumps(settings).replace("Infinity", "1e400"))
        ended = stage_runs.run(main, *paths, folder=folder)
        assert ended.code == 2, (value, ended)
        assert "params.yaml" in ended.error
        assert name in ended.error or "a seed occurs twice" in ended.error, (value, ended.error)
        assert "expected" in ended.error or value in ([0, 0],), (value, ended.error)
        assert expectation in ended.error
        assert ended.output == ""


# Younger than the params.yaml of others; without it, as before it came.
OPTIONAL = {
    "model": {"preprocess"},
    "dataset": {"test_fraction", "max_megapixels"},
    "prompts": {"max_sentences"},
    "embed": {"engine"},
    "linear_probe": {"max_rows"},
    "mlp_probe": {"max_rows"},
    "projection": {"max_rows"},
    "report": {"title"},
    "few_shot": {"neighbours", "gda_weights", "clap_length"},
}


@pytest.mark.parametrize("section", READERS)
def test_no_key_has_a_silent_default_and_no_key_is_unknown_in_silence(section: str, folder: Path) -> None:
    main, paths = READERS[section]
    for name in _committed()[section]:
        for change in ("misspelt",) if name in OPTIONAL.get(section, ()) else ("missing", "misspelt"):
            settings = _committed()
            value = settings[section].pop(name)
            if change == "misspelt":
                settings[section][name[:-1]] = value
            (folder / "params.yaml").write_text(json.dumps(settings))
            ended = stage_runs.run(main, *paths, folder=folder)
            assert ended.code == 2, (name, ended)
            if change == "missing":
                assert f"the key {name!r} is missing" in ended.error
                assert f"add {name}" in ended.error
            else:
                assert f"unknown key {name[:-1]!r}" in ended.error
                assert f"did you mean {name}?" in ended.error
    settings = {**_committed(), section: None}
    (folder / "params.yaml").write_text(json.dumps(settings))
    ended = stage_runs.run(main, *paths, folder=folder)
    assert ended.code == 2
    assert f"the section {section!r} is missing or is not a mapping" in ended.error


def test_a_sentence_over_the_models_context_is_refused_by_set_and_index_and_never_cut(
    folder: Path, tiny_clip: Path, own_cache: Path
) -> None:
    long = "a {classname} " + "and again " * 20
    model = {"name": f"local-dir:{tiny_clip}", "pretrained": None, "path": str(tiny_clip)}
    sets = {"good": {"template_mode": "shared", "templates": ["a {classname}.", long]}}
    stage_runs.write_params(folder, {"model": model, "prompts": {"active": "good", "sets": sets}})
    for path in (folder / "prompts").iterdir():
        path.unlink()
    assert _prompts(folder).code == 0
    assert stage_runs.run(fetch_model.main, "weights", "model.json", folder=folder).code == 0
    ended = stage_runs.run(embed_texts.main, "prompts", "weights", "model.json", "texts", folder=folder)
    assert ended.code == 2
    assert "where: params.yaml: prompts.sets.good.templates[1]" in ended.error
    assert "tokens, the model reads 32" in ended.error
    assert not list((folder / "texts").glob("*"))
    # The pool's templates are nobody's in particular: those that do not fit are left out, and counted.
    ended = stage_runs.run(embed_pool.main, "classes.json", "weights", "model.json", "pool.h5", folder=folder)
    assert ended.code == 0
    assert "templates fit the model" in ended.output
    stage_runs.write_params(folder, {})
    for path in (folder / "prompts").iterdir():
        path.unlink()
    assert _prompts(folder).code == 0


@pytest.mark.parametrize("content", ["null", "[]", '{"dataset": "cifar10"}'])
@pytest.mark.parametrize(
    ("stage", "paths"),
    [(prompts, ("classes.json", "out")), (embed_pool, ("classes.json", "w", "model.json", "out/pool.h5"))],
)
def test_a_damaged_list_of_classes_is_exit_3_and_named(
    stage: Any, paths: tuple[str, ...], content: str, tmp_path: Path
) -> None:
    stage_runs.write_params(tmp_path, {})
    (tmp_path / "classes.json").write_text(content)
    ended = stage_runs.run(stage.main, *paths, folder=tmp_path)
    assert ended.code == 3
    assert "error: not a list of class names\n  where: classes.json\n" in ended.error
    assert "fix:   rm classes.json && dvc repro prepare" in ended.error


def test_a_weapon_as_params_yaml_ends_the_process_with_2_and_no_traceback(folder: Path) -> None:
    """Nothing patched: the exit code that DVC sees, and no traceback."""
    (folder / "params.yaml").write_text(_bomb())
    ended = stage_runs.process("prompts", "classes.json", "prompts", folder=folder)
    assert (ended.code, ended.output) == (2, "")
    assert "expands to more than" in ended.error
