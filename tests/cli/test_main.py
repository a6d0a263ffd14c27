"""`clipcifar` itself and `clipcifar show`; the other commands are tested beside what they call."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipcifar.cli import main as cli
from clipcifar.core import params
from clipcifar.core.errors import OUT_OF_MEMORY, ConfigError, DataError, EnvironmentFault
from tests.support import finished_run
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT

METHODS = ["zero_shot", "rank_prompts", "linear_probe", "mlp_probe", "projection"]


def _metrics(accuracy: float, **more: Any) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "accuracy_ci95": {"low": accuracy - 0.01, "high": accuracy + 0.02},
        "balanced_accuracy": accuracy - 0.1,
        "ece": 0.05,
        "nll": 0.4,
        "n": 1000,
        "max_per_class": 0,
        "per_class": {"cat": accuracy, "sea_lion*": 0.25},
        **more,
    }


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    folder = tmp_path / "metrics"
    folder.mkdir()
    seeds = {"n": 3, "accuracy_mean": 0.811, "accuracy_std": 0.004}
    for i, method in enumerate(METHODS):
        more = {"seeds": seeds} if i > 2 else {}
        (folder / f"{method}.json").write_text(json.dumps(_metrics(0.7 + i / 20, **more)))
    return folder


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["clipcifar", *arguments])
    try:
        cli.main()
    except SystemExit as exit_:
        return exit_.code
    return 0


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_show_has_a_row_per_method_with_the_numbers_of_its_file(
    metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(metrics.parent)  # --metrics is metrics/ here unless given
    assert run(monkeypatch, "show") == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [cells(row)[:4] for row in rows] == [
        ["zero-shot", "0.7000", "0.6900–0.7200", ""],
        ["zero-shot, best prompts", "0.7500", "0.7400–0.7700", ""],
        ["linear probe", "0.8000", "0.7900–0.8200", ""],
        ["MLP probe", "0.8500", "0.8400–0.8700", "0.8110 ± 0.0040 (3)"],
        ["projection heads", "0.9000", "0.8900–0.9200", "0.8110 ± 0.0040 (3)"],
    ]


def test_show_per_class_adds_the_classes_by_their_plain_names(
    metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "show", "--metrics", str(metrics)) == 0
    without = capsys.readouterr().out
    assert run(monkeypatch, "show", "--metrics", str(metrics), "--per-class") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(without)
    assert cells(shown.splitlines()[-1]) == ["sea_lion*", *["0.2500"] * 5]
    assert cells(shown.splitlines()[-2]) == ["cat", "0.7000", "0.7500", "0.8000", "0.8500", "0.9000"]
    assert "sea_lion" not in without


@pytest.mark.parametrize("content", [None, "", "{", '{"accuracy": 0.5,\n<<<<<<< HEAD\n'])
def test_a_metrics_file_that_is_missing_or_no_json_is_named(
    metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = metrics / "linear_probe.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    assert run(monkeypatch, "show", "--metrics", str(metrics)) == 3
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ")
    assert f"where: {path}" in output.err
    assert "dvc repro" in output.err


@pytest.mark.parametrize("content", [None, "[1", "[]", '{"a": 1}'])
def test_results_of_a_study_that_are_not_there_name_its_own_command_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    """Plain `dvc repro` never runs a study."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data/studies/models"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "metrics.json").write_text(content)
        (folder / "timing.json").write_text("{}")
    assert run(monkeypatch, "models") == 3
    said = capsys.readouterr().err
    assert (said.count("where:"), said.count("fix:")) == (1, 1)
    assert "run `dvc repro studies/models/dvc.yaml`" in said
    assert "`dvc repro`" not in said


@pytest.mark.parametrize("arguments", [[], ["shwo"], ["show", "--perclass"], ["show", "extra"]])
def test_wrong_usage_is_exit_code_2_and_says_how_it_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert "usage: clipcifar" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (ConfigError("x", where="y", fix="z"), 2, "error: x\n  where: y\n  fix:   z\n"),
        (DataError("x"), 3, "error: x\n"),
        (EnvironmentFault("x"), 4, "error: x\n"),
        (MemoryError(), 4, f"error: {OUT_OF_MEMORY}\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_its_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def fail(_: object) -> str:
        raise error

    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    monkeypatch.setattr(cli, "_show", fail)
    assert run(monkeypatch, "show") == code
    assert capsys.readouterr().err == message


def test_the_traceback_comes_on_demand(metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (metrics / "zero_shot.json").unlink()
    monkeypatch.setenv("CLIPCIFAR_TRACEBACK", "1")
    with pytest.raises(DataError):
        run(monkeypatch, "show", "--metrics", str(metrics))


def test_a_reader_who_leaves_early_gets_no_traceback(metrics: Path) -> None:
    code = "import sys; sys.argv[0] = 'clipcifar'; from clipcifar.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "show", "--metrics", str(metrics)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.close()  # long before anything is printed, as `| true` does
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=PATIENCE_S) == 0


NARROW = (
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"},
)


@pytest.mark.parametrize("encoding", NARROW)
def test_a_terminal_that_lacks_a_character_gets_its_escape(metrics: Path, encoding: dict[str, str]) -> None:
    code = "import sys; sys.argv[0] = 'clipcifar'; from clipcifar.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "show", "--metrics", str(metrics)],
        env={**os.environ, **encoding},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"0.6900\u20130.7200" in done.stdout


def test_a_closed_terminal_is_no_error(metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run(monkeypatch, "show", "--metrics", str(metrics)) == 0


def test_show_needs_neither_the_model_nor_the_statistics(metrics: Path) -> None:
    heavy = ("torch", "open_clip", "sklearn", "scipy", "h5py", "numpy", "PIL", "dvc", "yaml")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r}))\n"  # None there makes an import fail
        f"sys.argv = ['clipcifar', 'show', '--per-class', '--metrics', {str(metrics)!r}]\n"
        "from clipcifar.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "projection heads" in done.stdout


def test_search_shows_the_ranking_and_keeps_the_choice_with_the_files_comments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(tmp_path / "data")
    classes = {"dataset": "cifar10", "class_names": finished_run.NAMES}
    (tmp_path / "data" / "classes.json").write_text(json.dumps(classes))
    monkeypatch.chdir(tmp_path)
    before = (ROOT / "params.yaml").read_text()
    (tmp_path / "params.yaml").write_text(before)
    assert run(monkeypatch, "search", "--top", "1") == 0
    shown = capsys.readouterr().out
    assert finished_run.TEMPLATES[0] in shown.split("Chosen:")[0]
    assert finished_run.TEMPLATES[1] not in shown.split("Chosen:")[0]
    assert (tmp_path / "params.yaml").read_text() == before
    assert run(monkeypatch, "search", "--write", "best") == 0
    assert "prompts.active: best" in capsys.readouterr().out
    after = (tmp_path / "params.yaml").read_text()
    added = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line.strip() for line in added] == [
        "best:",
        f"- {finished_run.TEMPLATES[1]}",
    ]  # the rest is there
    assert all(line in after.splitlines() for line in before.splitlines())
    saved = params.load(tmp_path / "params.yaml")["prompts"]
    assert saved["sets"]["best"] == {"template_mode": "shared", "templates": finished_run.TEMPLATES}
    assert saved["active"] == "photo"
    assert run(monkeypatch, "search", "--write", "photo") == 2  # nobody's set is written over
    assert "there is a prompt set 'photo' already" in capsys.readouterr().err
    assert (tmp_path / "params.yaml").read_text() == after


WHOLE = {
    "active": "photo",
    "kind": "ensemble",
    "chosen": "one",
    "verdict": "none",
    "n": {"train": 4, "test": 4},
    "gain": {"train": 0.0, "test": 0.0, "optimism": 0.0},
    "val_accuracy": {"ensemble": 0.5, "average": 0.5, "active": 0.5},
    "set": {"template_mode": "shared", "templates": ["a {classname}."]},
    "best": [],
    "candidates": [],
}
HARMED = [{"gain": 1}, {"n": {}}, {"val_accuracy": []}, {"set": []}, {"candidates": 3}, {"candidates": [{}]}]


def test_the_ranking_that_is_harmed_below_can_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ranking.json").write_text(json.dumps(WHOLE))
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "search") == 0
    assert "Chosen: one\n  a {classname}.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text", [None, "{", "[]", '{"active": "photo"}', *(json.dumps({**WHOLE, **harm}) for harm in HARMED)]
)
def test_a_ranking_that_is_missing_or_damaged_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
) -> None:
    (tmp_path / "data").mkdir()
    if text is not None:
        (tmp_path / "data" / "ranking.json").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "search") == 3
    message = capsys.readouterr().err
    assert "data/ranking.json" in message
    assert "dvc repro" in message


@pytest.mark.parametrize("text", [None, "{", "[]", "{}", '{"dataset": "x", "class_names": 3}'])
def test_without_the_class_names_nothing_is_kept_and_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str | None
) -> None:
    finished_run.write(tmp_path / "data")
    if text is not None:
        (tmp_path / "data" / "classes.json").write_text(text)
    before = (ROOT / "params.yaml").read_bytes()
    (tmp_path / "params.yaml").write_bytes(before)
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "search", "--write", "best") == 3
    message = capsys.readouterr().err
    assert "where: data/classes.json" in message
    assert "dvc repro" in message
    assert (tmp_path / "params.yaml").read_bytes() == before


@pytest.mark.parametrize("sets", [None, [], {}])
def test_a_set_is_kept_only_in_a_params_yaml_that_has_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sets: Any
) -> None:
    finished_run.write(tmp_path / "data")
    classes = {"dataset": "cifar10", "class_names": finished_run.NAMES}
    (tmp_path / "data" / "classes.json").write_text(json.dumps(classes))
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    settings["prompts"]["sets"] = sets
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.chdir(tmp_path)
    code = run(monkeypatch, "search", "--write", "best")
    if sets == {}:
        assert code == 0
        kept = params.load(tmp_path / "params.yaml")["prompts"]["sets"]
        assert list(kept) == ["best"]
    else:
        assert code == 2
        assert "where: params.yaml: prompts.sets" in capsys.readouterr().err
        assert params.load(tmp_path / "params.yaml") == settings


def test_the_number_of_templates_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    for text in ("0", "-1", "many", "1.5"):
        assert run(monkeypatch, "search", "--top", text) == 2


@pytest.mark.parametrize("content", ["{}", "[]", '{"accuracy": "high"}', "3"])
def test_metrics_of_another_shape_are_named(
    metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    (metrics / "zero_shot.json").write_text(content)
    assert run(monkeypatch, "show", "--metrics", str(metrics)) == 3
    assert "not metrics of this project" in capsys.readouterr().err


def test_a_note_says_what_changed_since_the_last_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run.write(tmp_path / "data")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    prompts = params.load(ROOT / "params.yaml")["prompts"]
    lock = {"schema": "2.0", "stages": {"prompts": {"params": {"params.yaml": {"prompts": prompts}}}}}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(lock))
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "search") == 0
    assert capsys.readouterr().err == ""
    edited = (tmp_path / "params.yaml").read_text().replace("a horse in a field.", "a horse in a meadow.")
    (tmp_path / "params.yaml").write_text(edited)
    assert run(monkeypatch, "search") == 0
    assert "not in these numbers: prompts.sets.scenes.sentences.horse\n" in capsys.readouterr().err
