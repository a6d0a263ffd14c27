"""The order of packages, from the imports as they stand: what ARCHITECTURE.md draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.import_closure import ROOT, imported_files

# Each package imports only from floors above its own line; packages of one line know nothing of each other.
FLOORS = (
    ("core",),
    ("backbone", "store"),
    ("project", "datasets", "prompts", "weights", "evaluation"),
    ("embeddings", "methods", "render"),
    ("report",),
    ("search", "verify", "studies"),
    ("api", "doctor"),
    ("explorer",),
    ("cli",),
)
FLOOR = {name: floor for floor, names in enumerate(FLOORS) for name in names}


def package(path: Path) -> str:
    """`core`, or `studies/few_shot`: what a file of the library belongs to."""
    parts = path.relative_to(ROOT / "clipcifar").parts
    return "/".join(parts[:2]) if parts[0] == "studies" and len(parts) > 2 else parts[0]


def may_import(a: str, b: str) -> bool:
    """Whether a file of package a may import one of package b."""
    (base, *_), (other, *_) = a.split("/"), b.split("/")
    return a == b or FLOOR[other] < FLOOR[base] or (base, b) == ("studies", "studies")


Imports = dict[Path, set[Path]]


@pytest.fixture(scope="module")
def imports() -> Imports:
    """Every module of the library with those that it imports; a package's own file is its docstring."""
    modules = [path for path in (ROOT / "clipcifar").rglob("*.py") if not path.name.startswith("__")]
    return {
        path: {other for other in imported_files(path) if other.name != "__init__.py"} - {path}
        for path in modules
    }


def circles(imports: Imports) -> list[Path]:
    """The modules that import themselves, directly or not."""

    def reached(start: Path) -> set[Path]:
        seen: set[Path] = set()
        todo = list(imports[start])
        while todo:
            if (path := todo.pop()) not in seen:
                seen.add(path)
                todo += imports.get(path, ())
        return seen

    return [path for path in imports if path in reached(path)]


def arrows_back(imports: Imports, allowed: Callable[[str, str], bool] = may_import) -> list[tuple[str, str]]:
    return [
        (path.as_posix(), other.as_posix())
        for path, others in imports.items()
        for other in others
        if not allowed(package(path), package(other))
    ]


def test_every_package_has_a_floor(imports: Imports) -> None:
    assert {package(path).split("/")[0] for path in imports} == set(FLOOR)


def test_no_arrow_goes_back_and_no_study_imports_another(imports: Imports) -> None:
    assert arrows_back(imports) == []


def test_no_two_modules_import_each_other_directly_or_not(imports: Imports) -> None:
    assert circles(imports) == []


def test_both_would_see_what_they_look_for() -> None:
    one, two = (ROOT / "clipcifar" / "core" / name for name in ("errors.py", "files.py"))
    study, other = (ROOT / "clipcifar" / "studies" / name / "page.py" for name in ("ensemble", "few_shot"))
    assert circles({one: {two}, two: {one}}) == [one, two]
    assert arrows_back({one: {study}, study: {one, other}}) == [
        (one.as_posix(), study.as_posix()),
        (study.as_posix(), other.as_posix()),
    ]


def test_the_library_imports_no_stage_and_stages_import_no_other_stage(imports: Imports) -> None:
    assert not [
        path
        for path, others in imports.items()
        for other in others
        if ROOT / "clipcifar" not in other.parents
    ]
    for path in [*(ROOT / "stages").glob("*.py"), *(ROOT / "studies").glob("*/*.py")]:
        outside = {
            other for other in imported_files(path) - {path} if ROOT / "clipcifar" not in other.parents
        }
        assert outside <= {ROOT / "stages" / "__init__.py"}, path


def test_tests_mirror_the_library() -> None:
    """`tests/<package>/` for every package, and a test of a module carries its name."""
    for name in FLOOR:
        assert list((ROOT / "tests" / name).rglob("test_*.py")), name
