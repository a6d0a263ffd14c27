"""The wheel and the editable install, each in an environment of its own that borrows this one's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from clipcifar.cli.main import COMMANDS
from tests.cli.test_command import ARGUMENTS
from tests.support.once import made_once
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import ROOT

IN_A_PROJECT = sorted(set(COMMANDS) - {"completion"})  # a shell completes the command anywhere
# As for a user: nothing of these tests' own settings reaches the other environment.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
WHERE = "import clipcifar, clipcifar.cli.main; print(clipcifar.__file__)"


def run(program: str | Path, *arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As with the program's environment activated; dvc, which is borrowed too, is a command of this one."""
    path = os.pathsep.join([str(Path(program).parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [str(part) for part in (program, *arguments)]
    environment = {**ENVIRONMENT, "PATH": path}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
    )


def pip(environment: Path, *arguments: str | Path) -> None:
    """Without a network, and without a look at the clipcifar that is borrowed with the rest."""
    offline = ("--no-index", "--no-deps", "--no-build-isolation", "--no-cache-dir")
    command = (environment / "bin" / "python", "-m", "pip", "--disable-pip-version-check", *arguments)
    done = run(*command, *offline, cwd=environment)
    assert done.returncode == 0, done.stdout + done.stderr


def empty_environment(folder: Path) -> Path:
    """A virtual environment that can import what this one can, but not this clipcifar."""
    assert run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent).returncode == 0
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    purelib = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
    (purelib / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed))
    return folder


def copy_of_the_project(folder: Path) -> Path:
    shutil.copytree(ROOT / "clipcifar", folder / "clipcifar", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    (built,) = made_once(tmp_path_factory, "wheel", _build).glob("*.whl")
    return built


def _build(base: Path) -> None:
    environment = empty_environment(base / "builder")
    pip(environment, "wheel", "--wheel-dir", base, copy_of_the_project(base / "copy"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it."""

    def install(folder: Path) -> None:
        pip(empty_environment(folder / "venv"), "install", "--ignore-installed", wheel)

    return made_once(tmp_path_factory, "installed", install) / "venv"


def test_every_file_of_the_package_is_in_the_wheel_and_nothing_beside_it(wheel: Path, tmp_path: Path) -> None:
    expected = files_of(copy_of_the_project(tmp_path / "copy") / "clipcifar")
    assert {Path(name).suffix for name in expected} >= {".py", ".typed", ".html", ".css", ".js"}
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = archive.read(metadata).decode()
    folder = metadata.split("/")[0]
    assert {name for name in names if not name.startswith(folder)} == {
        f"clipcifar/{name}" for name in expected
    }
    assert f"{folder}/licenses/LICENSE" in names
    assert "License-Expression: MIT" in said
    assert "Author: The clipcifar authors" in said
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (f"Version: {citation['version']}\n" in said, citation["license"]) == (True, "MIT")


def test_the_wheel_is_imported_and_run_from_any_folder(installed: Path, tmp_path: Path) -> None:
    python = installed / "bin" / "python"
    found = run(python, "-c", WHERE, cwd=tmp_path)
    assert Path(found.stdout.strip()).is_relative_to(installed), found.stderr
    for command in ([installed / "bin" / "clipcifar"], [python, "-m", "clipcifar"]):
        done = run(*command, "--version", cwd=tmp_path)
        assert (done.returncode, done.stdout) == (0, f"clipcifar {version('clipcifar')}\n"), done.stderr


@pytest.mark.parametrize("command", IN_A_PROJECT)
def test_what_a_wheel_lacks_is_said_where_there_is_no_project(
    command: str, installed: Path, tmp_path: Path
) -> None:
    done = run(installed / "bin" / "clipcifar", command, *ARGUMENTS.get(command, []), cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 2, said
    assert "there is no project here: no folder from this one upward holds params.yaml and dvc.yaml" in said
    assert "fix:   go to the project's folder, or clone it" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_a_script_beside_the_clone_imports_the_package_and_not_the_clones_folder(tmp_path: Path) -> None:
    """To Python a folder of that name is a namespace, unless a later entry of the path has the package."""
    clone = copy_of_the_project(tmp_path / "clipcifar")
    environment = empty_environment(tmp_path / "venv")
    python = environment / "bin" / "python"
    (tmp_path / "script.py").write_text(WHERE)
    assert run(python, "script.py", cwd=tmp_path).returncode == 1  # negative control: nothing is installed
    pip(environment, "install", "--ignore-installed", "--editable", clone)
    done = run(python, "script.py", cwd=tmp_path)
    assert done.stdout.strip() == str(clone / "clipcifar" / "__init__.py"), done.stderr
