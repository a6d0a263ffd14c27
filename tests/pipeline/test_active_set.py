"""Zero-shot waits for the active set's sentences alone, and no set vanishes: a real DVC says who runs."""

from __future__ import annotations

import json
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.workspace import SETS, Workspace

pytestmark = pytest.mark.pipeline
ACTIVE, TEXTS = Path("data/embeddings/active"), Path("data/embeddings/texts")
LARGE = {"template_mode": "shared", "templates": ["a [big|small|odd] {classname}."]}  # 30 sentences of digits
# What needs no new sentence and trains nothing.
WITHOUT_TORCH = [
    *("download", "prompts", "embed_active", "embed_texts", "embed_pool"),
    *("zero_shot", "prompt_sets", "rank_prompts", "report"),
]


def in_memo(workspace: Workspace) -> set[str]:
    with closing(sqlite3.connect(Path(workspace.environment["CLIPCIFAR_CACHE"], "sentences.sqlite"))) as memo:
        return {sentence for (sentence,) in memo.execute("SELECT sentence FROM memo")}


def names(workspace: Workspace, folder: Path) -> set[str]:
    return {path.stem for path in (workspace.folder / folder).glob("*.h5")}


def put(workspace: Workspace, name: str, *templates: str) -> None:
    entry = {"template_mode": "shared", "templates": list(templates)}
    workspace.edit(lambda settings: settings["prompts"]["sets"].update({name: entry}))


def test_zero_shot_waits_for_no_other_sets_sentences(workspace: Workspace) -> None:
    before = in_memo(workspace)
    put(workspace, "photo", "a photo of a {classname}.", "my own photo of a {classname}.")
    put(workspace, "digits", "a [blue|red|green] scan of the digit {classname}.")
    said = workspace.repro("zero_shot").stdout
    assert workspace.executed() == ["prompts", "embed_active", "zero_shot"]
    assert "20 sentences in photo, 10 of them new" in said
    new = in_memo(workspace) - before
    assert len(new) == 10
    assert all(sentence.startswith("my own photo of a ") for sentence in new)
    # Until the others are embedded, a comparison takes the fresh file of the active set.
    shown = workspace.command("clipcifar", "compare", "photo", "digits", check=False)
    assert "digits is stale" in shown.stderr
    assert "photo is stale" not in shown.stderr

    said = workspace.repro("embed_texts").stdout
    assert workspace.executed() == ["embed_texts"]
    assert "50 sentences in 2 sets, 30 of them new" in said
    assert workspace.read(f"{ACTIVE}/photo.h5") == workspace.read(f"{TEXTS}/photo.h5")

    put(workspace, "photo", "another photo of a {classname}.")
    workspace.repro("prompt_sets")
    assert workspace.executed() == ["prompts", "embed_texts", "prompt_sets"]
    shown = workspace.command("clipcifar", "compare", "photo", "digits")
    assert shown.stderr == "", "the other file of the active set is the fresh one now"


def test_another_sets_edit_leaves_zero_shot_alone(workspace: Workspace) -> None:
    put(workspace, "digits", "digit {classname}")
    put(workspace, "added", "one more {classname}")
    workspace.repro("zero_shot", "projection")
    assert workspace.executed() == ["prompts"]


def test_a_flip_of_the_active_set_loads_no_tower_and_a_deleted_set_leaves_nothing(
    workspace: Workspace,
) -> None:
    before = in_memo(workspace)
    workspace.edit(lambda settings: settings["prompts"].update(active="digits"))
    said = workspace.repro("zero_shot").stdout
    assert workspace.executed() == ["prompts", "embed_active", "zero_shot"]
    assert "10 sentences in digits, 0 of them new" in said
    assert (names(workspace, ACTIVE), names(workspace, TEXTS)) == ({"digits"}, {"photo", "digits"})
    assert "A = photo" in workspace.command("clipcifar", "compare", "photo", "digits").stdout
    workspace.edit(lambda settings: settings["prompts"].update(active="photo"))
    assert "Stage 'embed_active' is cached" in workspace.repro("zero_shot").stdout
    assert workspace.executed() == []

    put(workspace, "added", "one more {classname}")
    workspace.repro("embed_texts")
    assert names(workspace, TEXTS) == {"photo", "digits", "added"}
    workspace.edit(lambda settings: settings["prompts"]["sets"].pop("added"))
    workspace.edit(lambda settings: settings["prompts"]["sets"].pop("digits"))
    workspace.repro("embed_texts", "zero_shot")
    assert (names(workspace, ACTIVE), names(workspace, TEXTS)) == ({"photo"}, {"photo"})
    assert len(in_memo(workspace) - before) == 10, "the added set's sentences, and nobody else's"


def test_a_large_set_is_left_out_and_named_everywhere_unless_it_is_active(workspace: Workspace) -> None:
    def edit(settings: Any) -> None:
        settings["prompts"].update(max_sentences=29, sets={**SETS, "large": LARGE})

    workspace.edit(edit)
    said = workspace.repro().stdout
    left_out = (
        "left out, more than prompts.max_sentences: large (30 sentences); "
        "raise that, or make it prompts.active"
    )
    assert said.count(left_out) == 2  # by the stages prompts and embed_texts
    assert names(workspace, TEXTS) == set(SETS)
    details = json.loads(workspace.read("metrics/details/prompt_sets.json"))
    assert details["left out"] == {"large": 30}
    assert set(json.loads(workspace.read("metrics/prompt_sets.json"))) == set(SETS)
    assert left_out in workspace.command("clipcifar", "show").stdout
    assert left_out in workspace.command("clipcifar", "doctor", check=False).stdout
    assert left_out in workspace.read("report/index.html").decode()
    assert "more than prompts.max_sentences: large" in workspace.read("report/methods.md").decode()
    refused = workspace.command("clipcifar", "compare", "photo", "large", check=False)
    assert (refused.returncode, left_out in refused.stderr) == (3, True)

    workspace.edit(lambda settings: settings["prompts"].update(active="large"))
    said = workspace.repro("zero_shot").stdout
    assert "30 sentences in large, 30 of them new" in said
    assert names(workspace, ACTIVE) == {"large"}
    said = workspace.repro("prompt_sets").stdout
    assert "left out" not in said
    assert names(workspace, TEXTS) == {*SETS, "large"}
    assert "left out" not in workspace.command("clipcifar", "show").stdout


def test_stages_whose_sentences_are_known_import_no_torch(workspace: Workspace) -> None:
    stages = yaml.safe_load(workspace.read("dvc.yaml"))["stages"]
    for stage in WITHOUT_TORCH:
        python, *rest = shlex.split(stages[stage]["cmd"])
        done = workspace.command(python, "-X", "importtime", *rest)
        imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
        assert "numpy" in imported or stage in ("download", "prompts")
        assert not imported & {"torch", "open_clip"}, stage
    python, *rest = shlex.split(stages["mlp_probe"]["cmd"])  # negative control
    assert "| torch\n" in workspace.command(python, "-X", "importtime", *rest).stderr.replace("|   ", "| ")


def test_a_pool_with_sentences_that_are_too_long_needs_the_tower_once(
    workspace: Workspace,
) -> None:
    """What does not fit is remembered, too."""
    classes = workspace.folder / "data/classes.json"
    content = json.loads(classes.read_text())
    content["class_names"][0] = " ".join(["zero"] * 22)  # fits with a short template alone
    classes.unlink()  # not DVC's own copy
    classes.write_text(json.dumps(content))
    cmd = shlex.split(yaml.safe_load(workspace.read("dvc.yaml"))["stages"]["embed_pool"]["cmd"])
    first = workspace.command(*cmd).stdout
    fitting, offered = first.split()[0], first.split()[2]
    assert 0 < int(fitting) < int(offered)
    (workspace.folder / "data/embeddings/pool.h5").unlink()
    again = workspace.command(cmd[0], "-X", "importtime", *cmd[1:])
    assert again.stdout.split()[:3] == [fitting, "of", offered]
    assert "0 of them new" in again.stdout
    assert "torch" not in {line.rpartition("|")[2].strip() for line in again.stderr.splitlines()}
