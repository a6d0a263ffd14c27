"""Studies that DVC sees and those hidden from it, in a project of two small ones run by a real DVC."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.repo import Repo

from clipcifar.core import run_lock
from clipcifar.core.errors import ClipcifarError, ConfigError, EnvironmentFault
from clipcifar.project.overview import overview_of_studies
from clipcifar.project.studies import (
    HIDING,
    Study,
    all_studies,
    check_studies,
    find_study,
)
from tests.support.waiting import PATIENCE_S, wait_for
from tests.support.workspace import NOT_RUN, ROOT


def _stage(name: str, script: str, deps: list[str]) -> dict[str, Any]:
    command = f"{sys.executable} {script} {name}.txt"
    return {name: {"wdir": "../..", "cmd": command, "deps": [script, *deps], "outs": [f"{name}.txt"]}}


WRITES = "import sys\nopen(sys.argv[1], 'w').write('x')\n"
FAILS = "raise SystemExit(3)\n"
# Says which process it is, then waits, and ends as our stages do when it is interrupted.
SLEEPS = """import os, sys, time
open("stage.pid", "w").write(str(os.getpid()))
try:
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One study of one stage, `single`, and one of two, `double`, neither of them run."""
    Repo.init(str(tmp_path), no_scm=True).close()
    for mark, text in (("params.yaml", "{}\n"), ("dvc.yaml", "stages: {}\n")):  # of a project of ours
        (tmp_path / mark).write_text(text)
    stages = {
        "single": _stage("only", "only.py", []),
        "double": {**_stage("first", "first.py", []), **_stage("second", "second.py", ["first.txt"])},
    }
    for name, defined in stages.items():
        folder = tmp_path / "studies" / name
        folder.mkdir(parents=True)
        text = f"# Is {name} enough?\n# Not part of the question.\n{yaml.safe_dump({'stages': defined})}"
        (folder / "dvc.yaml").write_text(text)
        (folder / "dvc.lock").write_text(NOT_RUN)
        (folder / ".dvcignore").write_bytes(HIDING)
    for script in ("only", "first", "second"):
        (tmp_path / f"{script}.py").write_text(WRITES)
    return tmp_path


def _state(study: Study) -> tuple[bool, bool]:
    return not study.is_hidden, study.is_recorded


def _problems(repository: Path) -> list[ClipcifarError]:
    return [found for found in check_studies(repository) if isinstance(found, ClipcifarError)]


def _command(repository: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    program = [sys.executable, "-c", "from clipcifar.cli.main import main; main()", "study", *words]
    return subprocess.Popen(
        program,
        cwd=repository,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=_heed_signals,
        **options,
    )


def _heed_signals() -> None:
    """As at a terminal: these tests may themselves have been started where signals are ignored, by `&`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _started(repository: Path) -> int:
    """Wait for the stage to say which process it is."""
    file = repository / "stage.pid"
    wait_for(lambda: file.is_file() and bool(file.read_text()), what="the stage")
    return int(file.read_text())


def _wait_for_end(process: int) -> None:
    """Also of one that nobody has asked for its exit code: the command line of such a one is empty."""

    def has_ended() -> bool:
        try:
            return not Path(f"/proc/{process}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return True

    wait_for(has_ended, what="the end of the stage")


@pytest.mark.parametrize("name", ["single", "double"])
def test_a_run_that_succeeds_leaves_the_study_visible_and_the_others_hidden(
    repository: Path, name: str
) -> None:
    study = find_study(repository, name)
    assert _state(study) == (False, False)
    assert study.run() == 0
    assert [_state(each) == (True, True) for each in all_studies(repository)] == [
        each.name == name for each in all_studies(repository)
    ]
    assert _problems(repository) == []
    assert study.run() == 0  # again, with nothing to do
    (repository / "only.py").write_text(FAILS)
    (repository / "second.py").write_text(FAILS)
    assert study.run() == 255  # it has run once: its lock and DVC's cache have what `dvc pull` asks for
    assert _state(study) == (True, True)


def test_a_first_run_that_fails_hides_the_study_with_the_bytes_that_git_holds(repository: Path) -> None:
    (repository / "only.py").write_text(FAILS)
    study = find_study(repository, "single")
    assert study.run() == 255
    assert _state(study) == (False, False)
    assert (study.folder / ".dvcignore").read_bytes() == HIDING
    assert (study.folder / "dvc.lock").read_text() == NOT_RUN
    (repository / "only.py").write_text(WRITES)
    assert study.run() == 0
    assert _state(study) == (True, True)


def test_a_study_is_hidden_while_only_its_first_stage_is_recorded(repository: Path) -> None:
    (repository / "second.py").write_text(FAILS)
    study = find_study(repository, "double")
    assert study.run() == 255
    assert _state(study) == (False, False)
    assert "first:" in (study.folder / "dvc.lock").read_text()
    assert _problems(repository) == []
    in_part, counted = map(str, check_studies(repository))
    assert "double has run in part, 1 of 2 stages" in in_part
    assert "0 of 2 run" in counted
    (repository / "second.py").write_text(WRITES)
    (repository / "first.txt").chmod(0o644)
    written = (repository / "first.txt").stat().st_mtime_ns
    assert study.run() == 0
    assert _state(study) == (True, True)
    assert (repository / "first.txt").stat().st_mtime_ns == written  # its first stage is not run again


def test_what_a_user_has_added_to_the_hiding_file_stays(repository: Path) -> None:
    study = find_study(repository, "single")
    own = b"*.bak\n"
    (study.folder / ".dvcignore").write_bytes(HIDING + own)
    assert study.is_hidden
    assert study.run() == 0
    assert (study.folder / ".dvcignore").read_bytes() == own
    assert _state(study) == (True, True)
    (study.folder / "dvc.lock").unlink()  # as a merge may lose it
    study.settle()
    assert (study.folder / ".dvcignore").read_bytes() == HIDING + own


def test_a_hiding_file_of_other_wording_or_line_ends_is_no_obstacle(repository: Path) -> None:
    study = find_study(repository, "single")
    (study.folder / ".dvcignore").write_bytes(b"# not yet\r\n/dvc.yaml\r\n")
    assert study.is_hidden
    assert study.run() == 0
    assert _state(study) == (True, True)


def test_a_study_that_somebody_runs_is_not_settled(repository: Path) -> None:
    study = find_study(repository, "single")
    study.show()
    with run_lock.alone(study._scratch, doing="testing"):
        assert not study.settle_unless_running()
        assert not study.is_hidden
    assert study.settle_unless_running()
    assert study.is_hidden


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_dvc_and_its_stage_and_hides_the_study(repository: Path, asked: signal.Signals) -> None:
    (repository / "only.py").write_text(SLEEPS)
    with _command(repository, "single", process_group=0) as process:
        stage = _started(repository)
        study = find_study(repository, "single")
        assert study.runner == process.pid
        assert _state(study) == (True, False)
        assert _problems(repository) == []  # it is being run
        assert any("running" in line for line in overview_of_studies(repository))
        assert not study.is_hidden  # nor does a list of studies take it away meanwhile
        with pytest.raises(EnvironmentFault, match="running the study single"):
            study.run()
        process.send_signal(asked)
        _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + asked
    _wait_for_end(stage)
    assert _state(study) == (False, False)
    assert "single stays hidden" in said
    assert "Traceback" not in said


def test_what_a_killed_run_leaves_is_a_problem_that_the_named_command_mends(repository: Path) -> None:
    (repository / "only.py").write_text(SLEEPS)
    with _command(repository, "single") as process:
        stage = _started(repository)
        process.kill()
        group = os.getpgid(stage)  # DVC and its stage live on
        os.killpg(group, signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    _wait_for_end(stage)
    study = find_study(repository, "single")
    assert _state(study) == (True, False)
    (problem,) = _problems(repository)
    assert problem.where == str(study.folder)
    assert problem.fix == "clipcifar study"
    with _command(repository) as process:
        listed, _ = process.communicate(timeout=PATIENCE_S)
    assert "no whole run of single is recorded, so it is hidden from DVC again" in listed
    assert _state(study) == (False, False)
    assert _problems(repository) == []


def test_a_run_that_is_recorded_and_hidden_is_a_problem_too(repository: Path) -> None:
    study = find_study(repository, "single")
    assert study.run() == 0
    (study.folder / ".dvcignore").write_bytes(HIDING)  # as `git checkout HEAD -- …` may do
    (problem,) = _problems(repository)
    assert "`dvc gc` deletes" in problem.what
    assert any("shown to DVC again" in line for line in overview_of_studies(repository))
    assert _state(study) == (True, True)


@pytest.mark.parametrize(
    "lock", ["", "stages: [", "<<<<<<< ours\n", "stages: 3", "stages: {other: {}}", "x: 1"]
)
def test_a_lock_that_cannot_be_read_or_names_other_stages_is_no_record(repository: Path, lock: str) -> None:
    study = find_study(repository, "single")
    (study.folder / "dvc.lock").write_text(lock)
    assert not study.is_recorded


def test_without_a_name_every_study_is_listed_with_its_question(repository: Path) -> None:
    assert overview_of_studies(repository)[:2] == [
        "double  not run  Is double enough?",
        "single  not run  Is single enough?",
    ]
    assert find_study(repository, "single").run() == 0
    assert overview_of_studies(repository)[1] == "single  run      Is single enough?"
    shutil.copyfile(ROOT / "params.yaml", repository / "params.yaml")  # without which nothing is said of it
    assert overview_of_studies(repository)[1] == "single  run      Is single enough?"
    (repository / "only.py").write_text(FAILS)
    assert overview_of_studies(repository)[1] == "single  stale    Is single enough?"


def test_the_list_lines_up_whatever_the_studies_are_called(repository: Path) -> None:
    for name in ("猫", "cafe\u0301-\x1b[1m"):
        shutil.copytree(repository / "studies" / "single", repository / "studies" / name)
    lines = overview_of_studies(repository)[:4]
    assert lines == [
        "cafe\u0301-\\u001b[1m  not run  Is single enough?",
        "double          not run  Is double enough?",
        "single          not run  Is single enough?",
        "猫              not run  Is single enough?",
    ]


def test_an_unknown_name_is_told_the_nearest(repository: Path) -> None:
    for wrong, fix in (("singel", "did you mean single?"), ("../x", "use one of: double, single")):
        with pytest.raises(ConfigError, match="there is no study") as caught:
            find_study(repository, wrong)
        assert caught.value.fix == fix
    for ask in (lambda folder: find_study(folder, "single"), overview_of_studies):
        with pytest.raises(ConfigError, match="there are no studies"):
            ask(repository / "studies")


def test_every_study_of_this_project_has_its_files_and_its_question_in_the_table() -> None:
    table = (ROOT / "studies" / "README.md").read_text()
    rows = dict(re.findall(r"^\| \[(\w+)\]\(#\w+\) \| (.+?) \|", table, flags=re.MULTILINE))
    assert rows == {study.name: study.question for study in all_studies(ROOT)}
    for study in all_studies(ROOT):
        assert study.is_hidden != study.is_recorded
        if study.is_hidden:
            assert (study.folder / ".dvcignore").read_bytes() == HIDING
        assert (study.folder / "dvc.lock").is_file()  # else `git commit --all` would leave it out
