"""The texts: every file that they name is there, and the picture is the order that holds.

A path in backticks begins at the root, in `clipcifar/` or beside the text; a bare name may also be that of
one file alone, or of one beside a path in the same line. `<name>` stands for anything, and what stages and
DVC make is taken to be there.
"""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import PurePosixPath

import pytest
import yaml

from clipcifar.api.trials import RECORD
from tests.house.test_packages import FLOORS
from tests.support.import_closure import ROOT

MAX_LINES = 120  # of ARCHITECTURE.md, which is one page
SOURCE = (".py", ".yaml", ".toml", ".md", ".html", ".css", ".js", ".lock", ".cff")


def _with_folders(paths: set[str]) -> set[str]:
    return {str(each) for path in paths for each in (PurePosixPath(path), *PurePosixPath(path).parents)}


def _made() -> set[str]:
    """The outputs of all stages."""
    made: set[str] = set()
    for pipeline in (ROOT / "dvc.yaml", *ROOT.glob("studies/*/dvc.yaml")):
        for stage in yaml.safe_load(pipeline.read_text())["stages"].values():
            at = pipeline.parent / stage.get("wdir", ".")
            for kind in ("outs", "metrics", "plots"):
                paths = [next(iter(out)) if isinstance(out, dict) else out for out in stage.get(kind, [])]
                made |= {(at / path).resolve().relative_to(ROOT).as_posix() for path in paths}
    return made


def _tracked() -> set[str]:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True)
    return {name for name in done.stdout.split("\0") if name and (ROOT / name).exists()}


OF_DVC = {".dvc/cache", ".dvc/config.local", ".dvc/tmp", "dvc.lock"}  # what DVC makes in a user's project
OF_TRYING = {RECORD.as_posix()}  # what `clipcifar try` makes
FILES, MADE = _tracked(), _made() | OF_DVC | OF_TRYING
THERE = _with_folders(FILES | MADE)
TEXTS = sorted(
    path
    for path in FILES
    if fnmatch(path, "docs/*.md")
    or path
    in (
        *("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"),
        *("studies/README.md", "benchmarks/README.md", "data/sentences/README.md"),
    )
)


def _exists(path: str) -> bool:
    """Whether a path, `*` in it for anything, is a file or folder here, or lies in what a stage makes."""
    above = [str(parent) for parent in PurePosixPath(path).parents]
    if "*" not in path:
        return path in THERE or not MADE.isdisjoint(above)
    return any(fnmatch(each, path) for each in THERE) or any(fnmatch(a, b) for a in MADE for b in above)


def _is_of_this_tree(name: str) -> bool:
    """Whether a word in backticks means a file here: by its ending, or as a path into a known folder."""
    if not re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", name) or name.startswith("*"):
        return False
    known = {path.partition("/")[0] for path in THERE} | {name for floor in FLOORS for name in floor}
    return name.endswith(SOURCE) or ("/" in name and name.partition("/")[0] in known)


def missing(text: str, place: str) -> list[str]:
    """The names of files in a text that nothing has, the text being in folder `place`."""
    absent = []
    for line in re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).splitlines():
        beside: set[str] = set()
        for quoted in re.findall(r"`([^`]+)`", line):
            name = re.sub(r"<[^>]+>", "*", quoted).removesuffix(":")
            if not _is_of_this_tree(name):
                continue
            path = name.rstrip("/")
            places = [path, f"clipcifar/{path}", str(PurePosixPath(place) / path)]
            found = [each for each in places if _exists(each)]
            if not found and "/" not in path:
                same = [file for file in FILES if PurePosixPath(file).name == path]
                near = [file for file in same if str(PurePosixPath(file).parent) in beside]
                found = near or (same if len(same) == 1 else [])
            if found:
                beside |= {found[0], str(PurePosixPath(found[0]).parent)}
            else:
                absent.append(quoted)
    return absent


@pytest.mark.parametrize("name", TEXTS)
def test_every_file_that_a_text_names_is_there(name: str) -> None:
    assert missing((ROOT / name).read_text(), str(PurePosixPath(name).parent)) == []


def test_architecture_is_one_page() -> None:
    assert len((ROOT / "ARCHITECTURE.md").read_text().splitlines()) <= MAX_LINES


def test_the_picture_is_the_order_that_holds_and_every_package_has_its_line() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = [re.findall(r"[a-z_]+", line) for line in text.splitlines() if line.startswith("│")]
    assert [tuple(floor) for floor in reversed(drawn)] == list(FLOORS)  # the ground is drawn last
    listed = re.findall(r"^\| `([a-z_]+)` \|", text, flags=re.M)
    assert listed == [name for floor in FLOORS for name in floor]


def test_the_check_sees_what_it_looks_for() -> None:
    here = "`dvc.yaml` `towers.py` `store/inputs.py` `studies/<name>/` `data/heads/<x>.h5` `data/raw/<a>/x`"
    assert missing(here, ".") == []
    assert missing("`python a.py` `hf-hub:org/name` `train/<class>/…` `x.h5`", ".") == []
    gone = ["clipcifar/report.py", "page.py", "towels.py", "data/none.h5", "metrics/none.json", "tests/no/"]
    assert missing(" ".join(f"`{name}`" for name in gone), ".") == gone
    assert missing("`clipcifar/report/` and `page.py`", ".") == []
