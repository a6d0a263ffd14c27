"""Which studies DVC sees, and how one is started.

A stage that has outputs and no record in a dvc.lock makes `dvc pull`, `dvc checkout` and `dvc exp apply`
fail and `dvc commit` and `dvc exp save` refuse. So a study that was never run is hidden: its folder holds a
.dvcignore that names its dvc.yaml. Starting the study deletes that file, and it stays deleted once a whole
run is recorded, that is once the study's dvc.lock names every stage of its dvc.yaml.

Each study has a .dvcignore of its own, so that two people who start different studies change no file in
common. A dvc.lock without stages lies beside it from the beginning: git then knows both files, and neither
`git commit --all` nor `dvc exp run --temp`, which leave new files out, can carry the one without the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipcifar.core import files, run_lock
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError, EnvironmentFault
from clipcifar.core.params import suggestion
from clipcifar.project.lockfile import stages_in
from clipcifar.project.relay import Relay
from clipcifar.project.root import dvc_folder

HIDING = b"# Hidden from DVC until `clipcifar study` starts it.\n/dvc.yaml\n"


@dataclass(frozen=True)
class Study:
    """A folder of studies/ that has a dvc.yaml.

    Attributes:
        repository: the root of the project, absolute.
        name: of the folder.
    """

    repository: Path
    name: str

    @property
    def folder(self) -> Path:
        return self.repository / "studies" / self.name

    @property
    def question(self) -> str:
        """What it answers: the comment on the first line of its dvc.yaml."""
        path = self.folder / "dvc.yaml"
        with files.explained(path):
            first, _, _ = path.read_text(encoding="utf-8", errors="replace").partition("\n")
        return first.lstrip("# ") if first.startswith("#") else ""

    @property
    def is_hidden(self) -> bool:
        path = self.folder / ".dvcignore"
        return path.is_file() and HIDING.splitlines()[-1] in path.read_bytes().splitlines()

    @property
    def is_recorded(self) -> bool:
        """Whether dvc.lock names every stage, as it does after one whole run."""
        stages, recorded = self.stages()
        return bool(stages) and stages <= recorded

    def stages(self) -> tuple[set[str], set[str]]:
        """The stages that its dvc.yaml defines, and those that its dvc.lock records."""
        return set(stages_in(self.folder / "dvc.yaml")), set(stages_in(self.folder / "dvc.lock"))

    @property
    def runner(self) -> int | None:
        """The process that runs it now."""
        return run_lock.holder(self._scratch)

    @property
    def _scratch(self) -> Path:
        dvc = dvc_folder(self.repository)  # which several projects may share
        return dvc / "tmp" / "studies" / self.repository.relative_to(dvc.parent) / self.name

    def show(self) -> None:
        """Let DVC see the study; what a user has added to the hiding file stays."""
        path = self.folder / ".dvcignore"
        with files.explained(self.folder):
            lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
            rest = b"".join(line for line in lines if line.strip() not in HIDING.splitlines())
            if rest.strip():
                files.write_atomically(path, rest)
            else:
                path.unlink(missing_ok=True)

    def settle(self) -> None:
        """Let DVC see the study exactly when a whole run is recorded; the caller holds its lock."""
        if self.is_recorded:
            self.show()
        elif not self.is_hidden:
            path = self.folder / ".dvcignore"
            files.write_atomically(path, HIDING + (path.read_bytes() if path.exists() else b""))

    def settle_unless_running(self) -> bool:
        """The same where nobody runs it; whether that was so."""
        try:
            with run_lock.alone(self._scratch, doing=f"running the study {self.name}"):
                self.settle()
        except EnvironmentFault:
            return False
        return True

    def run(self) -> int:
        """`dvc repro` of its dvc.yaml, in the foreground; a first run that fails leaves the study hidden.

        Returns:
            DVC's exit code, or 128 and the number of the signal that ended the run.

        Raises:
            EnvironmentFault: another process runs it.
        """
        with run_lock.alone(self._scratch, doing=f"running the study {self.name}"), Relay() as relay:
            try:
                self.show()
                target = f"studies/{self.name}/dvc.yaml"
                return relay.run([sys.executable, "-m", "dvc", "repro", target], folder=self.repository)
            finally:
                self.settle()


def all_studies(repository: Path) -> list[Study]:
    """Every study of the project, by name."""
    names = sorted(path.parent.name for path in repository.glob("studies/*/dvc.yaml"))
    return [Study(repository, name) for name in names]


def some_studies(repository: Path) -> list[Study]:
    """The same, of which there is one at least; ConfigError where there is none."""
    studies = all_studies(repository)
    if not studies:
        raise ConfigError(
            "there are no studies", where=str(repository / "studies"), fix="go to the project's folder"
        )
    return studies


def find_study(repository: Path, name: str) -> Study:
    """The study of that name.

    Raises:
        ConfigError: there is none.
    """
    studies = {study.name: study for study in some_studies(repository)}
    if name not in studies:
        raise ConfigError(
            f"there is no study {name!r}", where=str(repository / "studies"), fix=suggestion(name, studies)
        )
    return studies[name]


def check_studies(repository: Path) -> Iterator[str | ClipcifarError]:
    """For the doctor: what DVC sees and should not, and the other way round.

    Yields:
        A DataError for each such study, with the command that mends it, then how many there are.
    """
    studies = all_studies(repository)
    for study in studies:
        if study.runner is None and study.is_hidden == study.is_recorded:
            what = (
                f"the study {study.name} is hidden from DVC although its run is recorded: `dvc push` leaves "
                "its results out, and `dvc gc` deletes them"
                if study.is_hidden
                else f"DVC sees the study {study.name}, of which no whole run is recorded: `dvc pull`, "
                "`dvc checkout` and `dvc commit` fail"
            )
            yield DataError(what, where=str(study.folder), fix="clipcifar study")
        stages, recorded = study.stages()
        if study.is_hidden and stages & recorded and not study.is_recorded:
            yield (
                f"{study.name} has run in part, {len(stages & recorded)} of {len(stages)} stages: "
                f"`clipcifar study {study.name}` goes on from there, while `dvc gc` would delete it"
            )
    yield f"{sum(study.is_recorded for study in studies)} of {len(studies)} run"
