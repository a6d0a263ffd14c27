"""What `clipcifar doctor` says of a study's DVC files: its commands and places are those of the study."""

from __future__ import annotations

from pathlib import Path

import pytest
from dvc.repo import Repo

from clipcifar.core.errors import ClipcifarError, ConfigError, DataError
from clipcifar.project import dvc_project
from clipcifar.project.dvc_project import md5
from clipcifar.project.outputs import check_outputs

STUDY = "studies/few"
LOCK = """schema: '2.0'
stages:
  few:
    cmd: touch few.txt
    deps:
    - path: given.txt
      hash: md5
      md5: {given}
      size: 1
    outs:
    - path: few.txt
      hash: md5
      md5: {made}
      size: 1
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project with one stage and one study, both of whose outputs are there."""
    Repo.init(str(tmp_path), no_scm=True).close()
    for folder, name, wdir in (("", "own", "."), (STUDY, "few", "../..")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        stage = f"{{cmd: touch {name}.txt, wdir: {wdir}, deps: [given.txt], outs: [{name}.txt]}}"
        (tmp_path / folder / "dvc.yaml").write_text(f"stages:\n  {name}: {stage}\n")
        (tmp_path / f"{name}.txt").write_text("x")
    (tmp_path / "given.txt").write_text("g")
    return tmp_path


def _problems(repository: Path) -> list[ClipcifarError]:
    return [found for found in check_outputs(repository) if isinstance(found, ClipcifarError)]


@pytest.mark.parametrize(
    ("lock", "fix"),
    [
        ("dvc.lock", "rm dvc.lock && dvc repro"),
        (f"{STUDY}/dvc.lock", f"rm {STUDY}/dvc.lock && clipcifar study few"),
    ],
)
def test_a_damaged_lock_file_is_mended_by_running_what_it_records(
    repository: Path, lock: str, fix: str
) -> None:
    (repository / lock).write_text("stages: [x: :")
    with pytest.raises(ConfigError) as caught:
        dvc_project.read(repository)
    assert (caught.value.where, caught.value.fix) == (str(repository / lock), fix)


def test_outputs_without_a_record_name_the_lock_file_that_lacks_them(repository: Path) -> None:
    assert [(found.where, found.fix) for found in _problems(repository)] == [
        (str(repository / "dvc.lock"), "dvc repro own"),
        (str(repository / STUDY / "dvc.lock"), "clipcifar study few"),
    ]


@pytest.mark.parametrize(("given", "command"), [("g", "dvc commit"), ("edited", "dvc repro")])
def test_a_study_that_is_stale_is_run_again_and_not_committed(
    repository: Path, given: str, command: str
) -> None:
    digests = {"given": md5(repository / "given.txt"), "made": md5(repository / "few.txt")}
    (repository / STUDY / "dvc.lock").write_text(LOCK.format(**digests))
    (repository / "given.txt").write_text(given)
    (repository / "own.txt").unlink()
    (found,) = _problems(repository)  # DVC's cache has no copy
    assert isinstance(found, DataError)
    assert found.fix == f"{command} {STUDY}/dvc.yaml:few"
