"""`stages.run`, and the cheapest stage through it; tests/stages/test_stages.py runs stages as DVC does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import stages
from clipcifar.core import params
from clipcifar.core.errors import OUT_OF_MEMORY, ConfigError, DataError, EnvironmentFault
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_sets
from stages import prompts
from tests.support.import_closure import ROOT
from tests.support.waiting import PATIENCE_S

CIFAR = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of the committed params.yaml and the classes of CIFAR-10, and the current folder."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "classes.json").write_text(json.dumps({"dataset": "cifar10", "class_names": CIFAR}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CLIPCIFAR_TRACEBACK", raising=False)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, main: Any, *arguments: str) -> int | str | None:
    monkeypatch.setattr(sys, "argv", ["stage", *arguments])
    monkeypatch.setattr(stages, "leave", sys.exit)
    with pytest.raises(SystemExit) as caught:
        stages.run(main)
    return caught.value.code


def test_leaving_loses_no_output_and_keeps_the_code() -> None:
    code = "import stages; print('last words', end=''); stages.leave(7)"
    closed = "import sys, stages; sys.stdout = None; stages.leave(7)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (7, "last words", "")
    assert subprocess.run([sys.executable, "-c", closed], cwd=ROOT).returncode == 7


@pytest.mark.parametrize(
    "encoding",
    [{"PYTHONIOENCODING": "latin-1"}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}],
)
def test_what_a_terminal_cannot_show_ends_no_stage(encoding: dict[str, str]) -> None:
    code = r"import stages; stages.run(lambda settings: print('cat \u2192 dog'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **encoding}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"cat \\u2192 dog\n", b"")


ASK = "import stages; print('ready', flush=True); input(); print(int(stages.nobody_waits()), flush=True)"
START = "import subprocess, sys; subprocess.run(sys.argv[1:])"
STAYS = ["sh", "-c", '"$0" "$@"; exit $?']


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize(
    "shell",
    [[], ["sh", "-c", 'exec "$0" "$@"'], STAYS, STAYS * 2],
    ids=["no shell", "becomes the stage", "stays", "two stay"],
)
def test_a_stage_knows_whether_its_starter_has_died(tmp_path: Path, shell: list[str], killed: bool) -> None:
    (tmp_path / "starter.py").write_text(START)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "starter.py"), *shell, sys.executable, "-c", ASK],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdin is not None
        assert starter.stdout is not None
        assert starter.stdout.readline() == "ready\n"
        if killed:
            starter.kill()
            starter.wait()
        starter.stdin.write("\n")
        starter.stdin.flush()
        assert starter.stdout.readline() == f"{int(killed)}\n"


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "params.yaml").read_text()
    assert text.count(old) == 1
    (folder / "params.yaml").write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (None, 0, ""),
        (ConfigError("x", where="y", fix="z"), 2, "error: x\n  where: y\n  fix:   z\n"),
        (DataError("x"), 3, "error: x\n"),
        (EnvironmentFault("x"), 4, "error: x\n"),
        (MemoryError(), 4, f"error: {OUT_OF_MEMORY}\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_a_stage_ends_with_is_an_exit_code_and_one_message(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException | None,
    code: int,
    message: str,
) -> None:
    def main(settings: dict[str, Any], path: Path) -> None:
        if error is not None:
            raise error

    assert run(monkeypatch, main, "out") == code
    assert capsys.readouterr().err == message


def test_a_stage_gets_the_settings_and_its_paths_in_order(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Any] = []

    def main(settings: dict[str, Any], first: Path, second: Path) -> None:
        got.extend([settings, first, second])

    assert run(monkeypatch, main, "a/b", "c") == 0
    assert got == [params.load(folder / "params.yaml"), Path("a/b"), Path("c")]


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b", "c"]])
def test_a_wrong_number_of_paths_never_reaches_the_stage(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    def main(settings: dict[str, Any], images: Path, texts: Path) -> None:
        raise AssertionError("called")

    assert run(monkeypatch, main, *arguments) == 2
    assert "expected the paths: images texts" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody foresaw must not look like an error of the user's."""

    def main(settings: dict[str, Any]) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["stage"])
    with pytest.raises(ZeroDivisionError):
        stages.run(main)


def test_the_traceback_of_an_error_comes_on_demand(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def main(settings: dict[str, Any]) -> None:
        raise DataError("x")

    monkeypatch.setattr(sys, "argv", ["stage"])
    monkeypatch.setenv("CLIPCIFAR_TRACEBACK", "1")
    with pytest.raises(DataError):
        stages.run(main)


def test_without_params_yaml_a_stage_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "params.yaml").unlink()
    assert run(monkeypatch, prompts.main, "classes.json", "prompts") == 2
    said = capsys.readouterr().err
    assert f"there is no params.yaml in {folder}\n  where: params.yaml\n" in said
    assert "fix:   go to the project's folder; if this is it: git checkout HEAD -- params.yaml" in said


def test_the_prompts_stage_writes_a_file_per_set_with_all_its_sentences(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, prompts.main, "classes.json", "prompts") == 0
    section = params.read(params.load(folder / "params.yaml"), "prompts", PromptsParams)
    expected = expand_sets(section, class_names=CIFAR, dataset="cifar10").sets
    assert {path.stem for path in (folder / "prompts").iterdir()} == {item.name for item in expected}
    for item in expected:
        written = json.loads((folder / "prompts" / f"{item.name}.json").read_text())
        assert written["sentences"] == item.sentences
        assert written["class_index"] == item.class_index
        assert written["class_names"] == CIFAR


def test_a_set_of_another_dataset_is_left_out_with_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "classes.json").write_text(json.dumps({"dataset": "digits", "class_names": ["zero", "one"]}))
    assert run(monkeypatch, prompts.main, "classes.json", "prompts") == 0
    skipped = [line for line in capsys.readouterr().out.splitlines() if "scenes" in line]
    assert len(skipped) == 1
    assert "cifar10" in skipped[0]
    assert "digits" in skipped[0]
    names = {path.stem for path in (folder / "prompts").iterdir()}
    assert "photo" in names
    assert "scenes" not in names
    edit(folder, "active: photo", "active: scenes")
    assert run(monkeypatch, prompts.main, "classes.json", "prompts") == 2


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("- a photo of a {classname}.", "- a photo of a {classnam}.", "prompts.sets.photo.templates[0]"),
        ("- a photo of a {classname}.", "- ''", "prompts.sets.photo.templates[0]"),
        ("airplane: [an airplane is flying.]", "aeroplane: [x]", "did you mean airplane?"),
        ("active: photo", "active: phot", "did you mean photo?"),
        ("active: photo", "active: 3", "expected text"),
        ("  active: photo", "  actve: photo", "did you mean active?"),
        ("prompts:\n", "prompts:\n  active: photo\n", "given twice"),
        ("val_fraction: 0.1", "val_fraction: 1_0", "different YAML readers"),
    ],
)
def test_a_bad_edit_costs_nothing_that_was_there(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    expected: str,
) -> None:
    run(monkeypatch, prompts.main, "classes.json", "prompts")
    before = {path.name: path.read_bytes() for path in (folder / "prompts").iterdir()}
    edit(folder, old, new)
    capsys.readouterr()
    assert run(monkeypatch, prompts.main, "classes.json", "prompts") == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert expected in output.err
    assert "where: params.yaml" in output.err
    assert {path.name: path.read_bytes() for path in (folder / "prompts").iterdir()} == before


def test_an_interrupted_stage_says_so_and_nothing_else(folder: Path) -> None:
    (folder / "classes.json").unlink()
    os.mkfifo(folder / "classes.json")
    process = subprocess.Popen(
        [sys.executable, "-m", "stages.prompts", "classes.json", "prompts"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # were we started with &
    )
    writer = os.open(folder / "classes.json", os.O_WRONLY)  # returns when the stage has begun to read
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE_S)
    os.close(writer)
    assert process.returncode == 130
    assert stderr == "interrupted\n"
