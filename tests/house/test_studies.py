"""Every study offers the names that the docstring of `clipcifar.studies` promises."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import clipcifar.studies
from clipcifar.project.studies import Study
from tests.support.import_closure import ROOT

STUDIES = sorted(path.parent for path in (ROOT / "clipcifar" / "studies").glob("*/__init__.py"))
NAMES = {"findings.py": ("measure", "as_metrics", "verdicts", "write"), "page.py": ("render",)}


def defined(path: Path) -> set[str]:
    """The functions and classes of a module."""
    kinds = ast.FunctionDef | ast.ClassDef
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def missing(study: Path) -> list[str]:
    """What a study does not offer."""
    home = study / "judge" if (study / "judge").is_dir() else study
    lacking = [
        f"{module}: {name}"
        for module, names in NAMES.items()
        for name in names
        if not (home / module).is_file() or name not in defined(home / module)
    ]
    sections = [name for name in defined(study / "params.py") if name.endswith("Params")]
    return lacking if len(sections) == 1 else [*lacking, "params.py: <Study>Params"]


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_offers_the_same_names_as_all_others_and_its_script_uses_them(study: Path) -> None:
    assert missing(study) == []
    scripts = "".join(path.read_text() for path in (ROOT / "studies" / study.name).glob("*.py"))
    for call in ("findings.measure(", "findings.write(", "page.render("):
        assert call in scripts


def test_there_are_seven_and_the_docstring_names_what_they_offer() -> None:
    assert len(STUDIES) == 7
    promised = {word for line in (clipcifar.studies.__doc__ or "").splitlines() for word in line.split()[:2]}
    assert {*NAMES, *(name for names in NAMES.values() for name in names), "params.py"} <= promised


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_is_hidden_from_dvc_until_a_run_of_it_is_recorded(study: Path) -> None:
    """Else `dvc pull` fails in every clone; git knows both files, so that neither is carried alone."""
    pipeline = Study(ROOT, study.name)
    assert pipeline.is_hidden != pipeline.is_recorded
    assert (pipeline.folder / "dvc.lock").is_file()
    assert pipeline.question


def test_a_study_that_lacks_a_name_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "params.py").write_text("class AParam: ...\n")
    (tmp_path / "findings.py").write_text("def measure(): ...\ndef write(): ...\nverdicts = 1\n")
    assert missing(tmp_path) == [
        "findings.py: as_metrics",
        "findings.py: verdicts",
        "page.py: render",
        "params.py: <Study>Params",
    ]
