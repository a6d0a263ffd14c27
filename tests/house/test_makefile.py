"""`make setup` with stand-ins for Pythons, which answer .ci/venv and note what they are told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT

# $2 of `-c` is what .ci/venv asks: answered by this Python under another version, perhaps without venv.
STUB = """#!/bin/sh
case $1 in
-c) exec {python} -c "import sys; sys.version_info = {version}; sys.modules.update({missing})
$2" ;;
esac
echo "{name} $*" >> {log}
[ "$2" != venv ] || {{ mkdir -p .venv/bin; cp {itself} .venv/bin/python; }}
"""
BROKEN = "#!/bin/sh\necho 'not installed, as a version manager says' >&2\nexit 127\n"


class Machine:
    """A folder with the project's Makefile, and a PATH with nothing but make's tools and stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.project, self.bin, self.log = folder / "project", folder / "bin", folder / "log"
        self.bin.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt", ".ci/venv"):
            (self.project / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.project / name)
        for tool in ("sh", "echo", "touch", "mkdir", "cp"):
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    def add(self, name: str, version: tuple[int, int] | None, *, venv: bool = True) -> None:
        """A Python of that name on the PATH; without a version it does not run."""
        text = BROKEN
        if version is not None:
            missing = {} if venv else {"ensurepip": None}
            itself, python = self.bin / name, sys.executable
            text = STUB.format(
                python=python, version=(*version, 1), missing=missing, name=name, log=self.log, itself=itself
            )
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def setup(self, *arguments: str) -> tuple[int, list[str]]:
        """Exit code and what was said on stderr, make's own last line left out."""
        done = subprocess.run(
            [str(shutil.which("make")), "setup", *arguments],
            cwd=self.project,
            env={"PATH": str(self.bin)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
        return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("make:")]

    def told(self) -> list[str]:
        """Every command that a stand-in was given: its name and the module that it was to run."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [" ".join(line.replace("-m ", "").split()[:2]) for line in lines]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["python3.11", "python3.12", "python3.13", "python3"], "python3.11"),
        (["python3.12", "python3"], "python3.12"),
        (["python3.13"], "python3.13"),
    ],
)
def test_the_first_python_that_is_there_is_taken(names: list[str], chosen: str, machine: Machine) -> None:
    for name in names:
        machine.add(name, {"python3.11": (3, 11), "python3.12": (3, 12)}.get(name, (3, 13)))
    assert machine.setup() == (0, [])
    assert machine.told() == [f"{chosen} venv", f"{chosen} pip"]
    assert (machine.project / ".venv" / "ready").exists()


def test_one_that_does_not_run_lacks_venv_or_is_of_another_version_is_passed_over(machine: Machine) -> None:
    machine.add("python3.11", None)
    machine.add("python3.12", (3, 12), venv=False)
    machine.add("python3", (3, 13))
    assert machine.setup() == (0, [])
    assert machine.told() == ["python3 venv", "python3 pip"]


@pytest.mark.parametrize(
    ("python", "version", "venv", "said"),
    [
        ("python3", (3, 10), True, " (python3 is 3.10)"),
        ("python3", (3, 14), True, " (python3 is 3.14)"),
        ("python3.12", (3, 12), False, " (python3.12 is 3.12 without venv)"),
        ("python3.12", None, True, ""),
    ],
)
def test_where_none_fits_one_line_says_what_to_do(
    python: str, version: tuple[int, int] | None, venv: bool, said: str, machine: Machine
) -> None:
    machine.add(python, version, venv=venv)
    code, (line,) = machine.setup()
    assert code == 2
    assert line.startswith(
        f"clipcifar needs Python 3.11, 3.12 or 3.13 with venv, and found none{said}: install"
    )
    assert "make PYTHON=" in line
    assert machine.told() == []


def test_a_named_python_goes_before_all_and_is_checked_as_well(machine: Machine) -> None:
    machine.add("python3.11", (3, 11))
    machine.add("mine", (3, 13))
    machine.add("old", (3, 9))
    code, (line,) = machine.setup("PYTHON=old")
    assert (code, machine.told()) == (2, [])
    assert "(old is 3.9)" in line
    assert machine.setup("PYTHON=mine") == (0, [])
    assert machine.told() == ["mine venv", "mine pip"]


def test_an_environment_is_kept_while_it_works_and_another_python_makes_it_anew(machine: Machine) -> None:
    machine.add("python3.12", (3, 12))
    machine.setup()
    machine.add("python3.11", (3, 11))
    (machine.project / ".venv" / "ready").unlink()
    assert machine.setup() == (0, [])
    assert machine.told()[2:] == ["python3.12 pip"]  # its own, though 3.11 goes before it
    (machine.project / ".venv" / "ready").unlink()
    assert machine.setup("PYTHON=python3.11") == (0, [])
    assert machine.told()[3:] == ["python3.11 venv", "python3.11 pip"]
    assert "python3.11 -m venv --clear .venv" in machine.log.read_text()  # or two Pythons share the folder


def test_the_same_pythons_are_named_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = re.findall(r"3\.\d+", (ROOT / ".ci" / "venv").read_text().split("case")[1].split(")")[0])
    assert project["requires-python"] == f">={versions[0]},<3.{int(versions[-1][2:]) + 1}"
    named = [line for line in project["classifiers"] if re.search(r":: 3\.\d+$", line)]
    assert [line.rsplit(" ", 1)[1] for line in named] == versions
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r'"(3\.\d+)"', workflow) == versions
