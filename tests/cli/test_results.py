"""`clipcifar show` and `models`; `compare` and `verify` are tested beside what they call."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from wcwidth import wcswidth

from tests.support.command_line import record, run


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def test_show_has_a_row_per_method_with_the_numbers_of_its_file(
    project: Path, metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert metrics == project / "metrics"
    record(project, *(path.relative_to(project).as_posix() for path in metrics.rglob("*.json")))
    assert run(monkeypatch, "show") == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [cells(row)[:4] for row in rows] == [
        ["zero-shot", "0.7000", "0.6900–0.7200", ""],
        ["zero-shot with best prompts", "0.7500", "0.7400–0.7700", ""],
        ["zero-shot with weighted prompts", "0.8000", "0.7900–0.8200", ""],
        ["GDA", "0.8500", "0.8400–0.8700", ""],
        ["linear probe", "0.9000", "0.8900–0.9200", ""],
        ["MLP probe", "0.9500", "0.9400–0.9700", "0.8110 ± 0.0040 (3)"],
        ["projection heads", "1.0000", "0.9900–1.0200", "0.8110 ± 0.0040 (3)"],
    ]


def test_show_of_a_dataset_without_val_images_has_zero_shot_and_says_why_no_more(
    metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What git kept of an earlier dataset beside it has other classes, and is not shown."""
    path = metrics / "details" / "zero_shot.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_val": 0, "per_class": {"eel": 0.5}}))
    (metrics / "mlp_probe.json").unlink()
    assert run(monkeypatch, "show", "--metrics", str(metrics), "--per-class") == 0
    _, _, row, _, _, _, of_class, _, said = capsys.readouterr().out.splitlines()
    assert cells(row)[:3] == ["zero-shot", "0.7000", "0.6900–0.7200"]
    assert cells(of_class) == ["eel", "0.5000"]
    assert said.startswith("The dataset has no val images: zero-shot's confidences are at the model's own")


def test_show_per_class_adds_the_classes_by_their_plain_names(
    metrics: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "show", "--metrics", str(metrics)) == 0
    without = capsys.readouterr().out
    assert run(monkeypatch, "show", "--metrics", str(metrics), "--per-class") == 0
    shown = capsys.readouterr().out
    assert shown.startswith(without)
    assert cells(shown.splitlines()[-1]) == ["sea_lion*", *["0.2500"] * 7]
    assert cells(shown.splitlines()[-2]) == ["cat", *(f"{0.7 + i / 20:.4f}" for i in range(7))]
    assert "sea_lion" not in without


def test_show_lines_up_and_steers_nothing_whatever_the_classes_are_called(metrics: Path) -> None:
    for path in (metrics / "details").iterdir():
        details = json.loads(path.read_text())
        details["per_class"] = {"卡车": 0.5, "cafe\u0301": 0.25, "a|\x1b[2J\u202eb": 1.0}
        path.write_text(json.dumps(details))
    script = "from clipcifar.cli.main import main; main()"
    command = [sys.executable, "-c", script, "show", "--per-class", "--metrics", str(metrics)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split(" | ")[0] for line in shown[-3:]] == [
        "| 卡车               ",
        "| cafe\u0301               ",
        r"| a\|\u001b[2J\u202eb",
    ]
    assert len({wcswidth(line) for line in shown[-5:]}) == 1


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
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    """Plain `dvc repro` never runs a study."""
    folder = project / "data/studies/models"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "metrics.json").write_text(content)
        (folder / "timing.json").write_text("{}")
    assert run(monkeypatch, "models") == 3
    said = capsys.readouterr().err
    assert (said.count("where:"), said.count("fix:")) == (1, 1)
    assert "run `clipcifar study models`" in said
    assert "`dvc repro`" not in said


@pytest.mark.parametrize(
    ("command", "missing", "mending"),
    [
        ("show", "metrics/zero_shot.json", "dvc repro"),
        ("search", "data/ranking.json", "dvc repro"),
        ("models", "data/studies/models/metrics.json", "clipcifar study models"),
    ],
)
def test_before_a_first_run_it_is_said_what_is_not_there_and_what_makes_it(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    missing: str,
    mending: str,
) -> None:
    assert run(monkeypatch, command) == 3
    first, where, fix = capsys.readouterr().err.splitlines()
    assert first == f"error: there is no {Path(missing).name}"
    assert where == f"  where: {missing}"
    assert fix.startswith(f"  fix:   run `{mending}`")


def test_show_needs_neither_the_model_nor_the_statistics(metrics: Path) -> None:
    heavy = ("torch", "open_clip", "sklearn", "scipy", "h5py", "numpy", "PIL", "dvc", "yaml", "shtab")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r}))\n"  # None there makes an import fail
        f"sys.argv = ['clipcifar', 'show', '--per-class', '--metrics', {str(metrics)!r}]\n"
        "from clipcifar.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "projection heads" in done.stdout


@pytest.mark.parametrize("content", ["{}", "[]", '{"accuracy": "high"}', "3"])
@pytest.mark.parametrize("name", ["zero_shot.json", "details/zero_shot.json"])
def test_metrics_of_another_shape_are_named(
    metrics: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str,
) -> None:
    (metrics / name).write_text(content)
    assert run(monkeypatch, "show", "--metrics", str(metrics)) == 3
    assert "not metrics of this project" in capsys.readouterr().err
