"""A project workspace in a temporary git repository, with a count of the stages that really ran."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from clipcifar.project.studies import HIDING, all_studies
from clipcifar.prompts.save import overlay
from tests.support.waiting import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]
_COPIED = (
    "clipcifar",
    "stages",
    "studies",
    "data/demo",
    "data/none",
    "data/sentences",
    "dvc.yaml",
    "params.yaml",
    ".dvc/config",
    ".dvc/plots",
    ".dvc/.gitignore",
    ".dvcignore",
    ".gitignore",
)
# Python runs a module of this name at every start: it notes which stage is being executed.
_SITECUSTOMIZE = """
import os, sys
arguments = sys.orig_argv
if "-m" in arguments and arguments[arguments.index("-m") + 1].startswith(("stages.", "studies.")):
    with open(os.environ["EXECUTED"], "a") as file:
        file.write(arguments[arguments.index("-m") + 1] + "\\n")
"""
# The stages that an edit of a prompt may run.
TEXT_SIDE = {"prompts", "embed_active", "embed_texts", "report"} | {
    *("zero_shot", "prompt_sets", "rank_prompts", "prompt_weighting", "gda", "projection")
}
QUICK = {
    "dataset": {"name": "digits"},
    "model": {"name": "local-dir:data/demo/clip", "pretrained": None, "path": "data/demo/clip"},
    "linear_probe": {"c_grid": [1, 10]},
    "mlp_probe": {"max_epochs": 3, "seeds": [0, 1, 2], "hidden": 16},
    "projection": {"max_epochs": 3, "seeds": [0, 1, 2], "hidden": 16},
}

ALL = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])
STAGE_OF = {  # by module
    stage["cmd"].split()[2]: name
    for file in (ROOT / "dvc.yaml", *ROOT.glob("studies/*/dvc.yaml"))
    for name, stage in yaml.safe_load(file.read_text())["stages"].items()
}
SETS = {
    "photo": {"template_mode": "shared", "templates": ["a photo of a {classname}."]},
    "digits": {"template_mode": "shared", "templates": ["a scan of the handwritten digit {classname}."]},
}
NOT_RUN = "schema: '2.0'\nstages: {}\n"  # what git holds as the dvc.lock of a study that nobody ran
# What DVC makes beside a file that it places; killed, it leaves it, and nothing reads it.
OF_DVC = re.compile(r"\.[\w-]{22}\.tmp")
MADE_AT = re.compile(rb"<dt>commit</dt>.*?<dt>params.yaml</dt><dd>.*?</dd>\n", re.DOTALL)
OUTPUTS = ("metrics", "plots", "data/embeddings", "data/heads", "data/predictions", "report")


def digits_params() -> dict[str, Any]:
    """What `QUICK` says, and two prompt sets."""
    return {**QUICK, "prompts": {"active": "photo", "sets": SETS}}


def results_in(folder: Path) -> dict[str, bytes]:
    """The bytes of every result of a run in `folder`, by path; without .gitignore and DVC's leftovers.

    A page is told without the commit that it was made at, which equal inputs need not have in common.
    """
    files = (path for name in OUTPUTS for path in (folder / name).rglob("*"))
    made = (
        path
        for path in files
        if path.is_file() and path.name != ".gitignore" and not OF_DVC.fullmatch(path.name)
    )
    return {path.relative_to(folder).as_posix(): MADE_AT.sub(b"", path.read_bytes()) for path in made}


def outputs(workspace: Workspace) -> dict[str, bytes]:
    """The bytes of every result, by path."""
    return results_in(workspace.folder)


class Workspace:
    """A copy of the project in `folder`, run by the real DVC."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._executed = folder.with_name(folder.name + ".executed")
        hooks = folder.with_name(folder.name + ".hooks")
        hooks.mkdir(exist_ok=True)
        (hooks / "sitecustomize.py").write_text(_SITECUSTOMIZE)
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(hooks),
            "EXECUTED": str(self._executed),
            "CLIPCIFAR_CACHE": str(folder.with_name(folder.name + ".cache")),
            "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "test",
            "GIT_AUTHOR_EMAIL": "test@localhost",
            "GIT_COMMITTER_NAME": "test",
            "GIT_COMMITTER_EMAIL": "test@localhost",
        }

    @classmethod
    def create(cls, folder: Path, params: dict[str, Any]) -> Workspace:
        for name in _COPIED:
            source, target = ROOT / name, folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copyfile(source, target)
        for study in all_studies(folder):  # whatever was run in this clone
            (study.folder / ".dvcignore").write_bytes(HIDING)
            (study.folder / "dvc.lock").write_text(NOT_RUN)
        workspace = cls(folder)
        workspace.edit(lambda settings: overlay(settings, params))
        workspace.command("git", "init", "--quiet")
        workspace.commit("start")
        return workspace

    def copy(self, folder: Path) -> Workspace:
        """An independent copy, DVC's cache and the scratch folder included."""
        shutil.copytree(self.folder, folder, symlinks=True)
        other = Workspace(folder)
        shutil.copytree(self.environment["CLIPCIFAR_CACHE"], other.environment["CLIPCIFAR_CACHE"])
        return other

    def command(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    def commit(self, message: str) -> None:
        self.command("git", "add", "--all")
        self.command("git", "commit", "--quiet", "--allow-empty", "--message", message)

    def repro(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        self._executed.unlink(missing_ok=True)
        return self.command("dvc", "repro", *arguments, check=check)

    def start_study(self, name: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a study that DVC may not see yet; once it has run, `repro` of its dvc.yaml does the same."""
        self._executed.unlink(missing_ok=True)
        return self.command("clipcifar", "study", name, check=check)

    def executed(self) -> list[str]:
        """The stages that ran since the last `repro` began, in order."""
        modules = self._executed.read_text().split() if self._executed.exists() else []
        return [STAGE_OF[module] for module in modules]

    def settings(self) -> Any:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def edit(self, change: Callable[[Any], object]) -> None:
        """Edit params.yaml (comments are lost, which no test minds)."""
        settings = self.settings()
        change(settings)
        (self.folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()


def finished_workspace(folder: Path) -> Workspace:
    """The pipeline run once on the embedded data, and committed."""
    workspace = Workspace.create(folder, {})
    workspace.edit(lambda settings: settings["prompts"].update(sets={}))
    workspace.edit(lambda settings: overlay(settings, digits_params()))
    workspace.commit("params")
    workspace.repro()
    assert set(workspace.executed()) == ALL
    assert len(workspace.executed()) == len(ALL)
    workspace.commit("first run")
    return workspace
