"""The notebook that shows the door for Python: it runs, says what the files say, and holds no outputs."""

from __future__ import annotations

import ast
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import clipcifar
from clipcifar.core.files import read_json
from tests.support.import_closure import ROOT
from tests.support.waiting import PATIENCE_S
from tests.support.workspace import Workspace

TOUR = ROOT / "docs/tour.ipynb"
MAX_CELLS = 25
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},  # no version: it would change with who saved it last
}

Executed = dict[str, str]  # what each cell shows as text, by the cell's id
Execute = Callable[[Any], Executed]


def unstable(text: str) -> list[str]:
    """What in a notebook's file is no work of its author: outputs, counts, and what a program adds."""
    notebook = json.loads(text)
    cells = notebook["cells"]
    made = [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count") is not None]
    added = [cell["id"] for cell in cells if cell["metadata"]]
    added += [] if notebook["metadata"] == METADATA else ["metadata"]
    canonical = nbformat.writes(nbformat.reads(text, as_version=4)) + "\n"
    return made + added + ([] if text == canonical else ["layout"])


def test_it_is_short_and_kept_without_what_running_adds() -> None:
    text = TOUR.read_text()
    nbformat.validate(nbformat.reads(text, as_version=4))
    assert len(json.loads(text)["cells"]) <= MAX_CELLS
    assert unstable(text) == [], "clear the outputs, and take back what your notebook program has added"


def test_what_running_adds_is_noticed() -> None:
    notebook = nbformat.reads(TOUR.read_text(), as_version=4)
    kernel, version, output, tag = (copy.deepcopy(notebook) for _ in range(4))
    kernel.metadata["kernelspec"]["display_name"] = "my environment"
    version.metadata["language_info"]["version"] = "3.12.1"
    output.cells[1].outputs = [nbformat.v4.new_output("stream", text="said")]
    tag.cells[0].metadata["collapsed"] = True
    told = [unstable(nbformat.writes(harmed) + "\n") for harmed in (kernel, version, output, tag)]
    assert told == [["metadata"], ["metadata"], ["open"], ["title"]]
    assert unstable(json.dumps(notebook)) == ["layout"]


@pytest.fixture
def execute(finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Execute:
    """Run a notebook as Jupyter does, in another folder, on the finished project."""
    folders = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")
    for name in folders:  # nothing of this account's is read or written
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("JUPYTER_PATH", "")
    monkeypatch.setenv("CLIPCIFAR_PROJECT", str(finished.folder))
    monkeypatch.setenv("CLIPCIFAR_CACHE", finished.environment["CLIPCIFAR_CACHE"])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(notebook: Any) -> Executed:
        at = {"metadata": {"path": str(tmp_path)}}
        NotebookClient(notebook, timeout=PATIENCE_S, kernel_name="python3", resources=at).execute()
        return {cell.id: shown(cell) for cell in notebook.cells if cell.cell_type == "code"}

    return run


def shown(cell: Any) -> str:
    """A cell's text outputs, and for pictures `<png>`."""
    texts = []
    for output in cell.outputs:
        data = output.get("data", {})
        texts.append(output.get("text") or ("<png>" if "image/png" in data else data.get("text/plain", "")))
    return "\n".join(texts)


def numbers(text: str) -> list[float]:
    """The numbers of a shown tuple or dict, in order."""
    value = ast.literal_eval(text)
    items = value.values() if isinstance(value, dict) else value
    return [float(item) for item in items if not isinstance(item, (str, list))]


@pytest.mark.pipeline
def test_it_runs_and_says_what_the_files_say(execute: Execute, finished: Workspace) -> None:
    said = execute(nbformat.reads(TOUR.read_text(), as_version=4))
    measured = {
        method: read_json(finished.folder / f"metrics/{method}.json")["accuracy"]
        for method in ("zero_shot", "linear_probe")
    }
    assert said["open"] == f"clipcifar.open({str(finished.folder)!r})"
    assert numbers(said["zero-shot"]) == pytest.approx([measured["zero_shot"]] * 2, abs=1e-5)
    assert f"right: {measured['linear_probe']:.4f}" in said["predictions"]
    assert numbers(said["estimator"])[0] == pytest.approx(measured["linear_probe"], abs=1e-5)
    assert "['eight']" in said["picture"]  # scikit-learn's own label of that digit
    project = clipcifar.open(finished.folder)
    assert project.compare("zero_shot", "linear_probe").verdict in said["compare"]
    assert f"{measured['zero_shot']:.3f}  a photo of a {{classname}}." in said["templates"]  # the active set
    assert sum(numbers(said["images"].partition("\n")[2])) == len(project.images("test").ids)
    assert [name for name in ("map", "picture", "confidence") if "<png>" not in said[name]] == []
    assert "warning" not in " ".join(said.values()).lower()


@pytest.mark.pipeline
def test_a_cell_that_fails_is_noticed(execute: Execute) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"):
        execute(notebook)


def first_cell(
    folder: Path, monkeypatch: pytest.MonkeyPatch, project: str | None = None
) -> clipcifar.Project:
    """What the first cell opens, the notebook being started in a folder."""
    monkeypatch.chdir(folder)
    if project is None:
        monkeypatch.delenv("CLIPCIFAR_PROJECT", raising=False)
    else:
        monkeypatch.setenv("CLIPCIFAR_PROJECT", project)
    (code,) = (cell["source"] for cell in json.loads(TOUR.read_text())["cells"] if cell["id"] == "open")
    names: dict[str, Any] = {}
    exec("".join(code), names)
    opened = names["project"]
    assert isinstance(opened, clipcifar.Project)
    return opened


def marked(folder: Path, *, with_results: bool) -> Path:
    """As much of a project as opening it asks for."""
    (folder / "data/predictions").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml"):
        (folder / name).touch()
    if with_results:
        (folder / "data/predictions/zero_shot.h5").touch()
    return folder


def test_it_finds_the_project_that_a_reader_means(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is named, the one around it, or the repository's demo; else it says what to do."""
    repository = marked(tmp_path / "repository", with_results=False)
    docs = repository / "docs"
    docs.mkdir()
    with pytest.raises(clipcifar.ClipcifarError, match="no finished run yet") as caught:
        first_cell(docs, monkeypatch)
    assert "make demo" in caught.value.fix
    demo = marked(repository / "build/demo", with_results=True)
    assert first_cell(docs, monkeypatch).root == demo
    mine = marked(tmp_path / "mine", with_results=True)
    assert first_cell(docs, monkeypatch, str(mine)).root == mine
    (repository / "data/predictions/zero_shot.h5").touch()
    assert first_cell(docs, monkeypatch).root == repository
    with pytest.raises(clipcifar.ClipcifarError, match="no project here"):
        first_cell(tmp_path, monkeypatch)
