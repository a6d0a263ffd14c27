"""What the source itself promises: sizes, who may import what, and nothing dynamic."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Set
from pathlib import Path

import pytest
import yaml

from clipcifar.prompts.save import overlay
from tests.support.import_closure import ROOT
from tests.support.made import write_embeddings
from tests.support.waiting import PATIENCE_S

LIBRARY = sorted((ROOT / "clipcifar").rglob("*.py"))
SCRIPTS = [*sorted((ROOT / "stages").glob("*.py")), *sorted((ROOT / "studies").rglob("*.py"))]
SOURCES = [*LIBRARY, *SCRIPTS]
MAX_LINES = 250  # a library file this long is two ideas; a stage has no room for one
MAX_SCRIPT_LINES = 64  # besides its imports
DOOR = ROOT / "clipcifar" / "cli"  # knows its arguments and the current folder; the rest is told


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(path: Path) -> list[ast.AST]:
    return list(ast.walk(ast.parse(path.read_text())))


def names_used(path: Path) -> set[str]:
    """Names, dotted names such as `os.getcwd`, and names imported from elsewhere likewise dotted."""
    found = set()
    for node in nodes(path):
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def offenders(paths: Iterable[Path], forbidden: Set[str]) -> dict[str, set[str]]:
    """The files that use a forbidden name, or anything of a forbidden module, with what they use."""
    used = {
        name(path): {
            each for each in names_used(path) if each in forbidden or each.split(".")[0] in forbidden
        }
        for path in paths
    }
    return {path: found for path, found in used.items() if found}


AMBIENT = {"sys.argv", "os.getcwd", "os.chdir", "Path.cwd", "argparse"}
DYNAMIC = {
    "__import__",
    "builtins.eval",
    "compile",
    "eval",
    "exec",
    "importlib.import_module",
    "importlib.util",
    "marshal",
    "npy.read_array",  # numpy.lib.format, of which the library reads headers alone
    "numpy.lib.format.read_array",
    "numpy.load",
    "np.load",
    "os.popen",
    "os.system",
    "pickle",
    "shelve",
    "yaml.load",
    "yaml.unsafe_load",
}


VAGUE = {"found", "one"}  # true of anything: they leave the reader to find out what is held


def vague(path: Path) -> list[tuple[int, str]]:
    """Where a variable or parameter has a vague name: line and name; fields of a class are neither."""
    known = nodes(path)
    bodies = [statement for node in known if isinstance(node, ast.ClassDef) for statement in node.body]
    fields = [statement.target for statement in bodies if isinstance(statement, ast.AnnAssign)]
    bound = [(node.lineno, node.arg) for node in known if isinstance(node, ast.arg)]
    bound += [(node.lineno, node.name or "") for node in known if isinstance(node, ast.ExceptHandler)]
    bound += [
        (node.lineno, node.id)
        for node in known
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in fields
    ]
    return sorted((line, held) for line, held in bound if held in VAGUE)


def lines_without_imports(path: Path) -> int:
    imports = [node for node in nodes(path) if isinstance(node, ast.Import | ast.ImportFrom)]
    return len(path.read_text().splitlines()) - sum(node.end_lineno - node.lineno + 1 for node in imports)


def test_a_file_can_be_read_without_getting_lost() -> None:
    assert [name(path) for path in LIBRARY if len(path.read_text().splitlines()) > MAX_LINES] == []
    assert [name(path) for path in SCRIPTS if lines_without_imports(path) > MAX_SCRIPT_LINES] == []


def test_imports_are_absolute_and_by_name() -> None:
    """What dvc.yaml lists as dependencies is read off the import statements."""
    found = [
        (name(path), node) for path in SOURCES for node in nodes(path) if isinstance(node, ast.ImportFrom)
    ]
    assert [
        (path, node.lineno) for path, node in found if node.level or [a.name for a in node.names] == ["*"]
    ] == []


def test_the_library_knows_neither_its_arguments_nor_the_current_directory() -> None:
    assert offenders([path for path in LIBRARY if DOOR not in path.parents], AMBIENT) == {}
    assert offenders(LIBRARY, {"argparse"})  # negative control: the door does


NETWORK = {
    "fsspec",
    "requests",
    "pooch",
    "huggingface_hub",
    "urllib",
    "urllib3",
    "httpx",
    "aiohttp",
    "ftplib",
    "http",
}
PORTS = {
    "socket",
    "socketserver",
    "ssl",
    "asyncio",
    "uvicorn",
    "xmlrpc",
    "http.server",
    "multiprocessing.managers",
}
WORDS = {  # of the web's, which ask nobody
    *("urllib.parse.parse_qs", "urllib.parse.urlencode"),
    *("http.HTTPStatus", "http.cookies.CookieError", "http.cookies.SimpleCookie"),
}


def test_four_modules_ask_the_network_and_the_explorer_alone_listens_on_this_machine_alone() -> None:
    cluster, explorer = "clipcifar/embeddings/cluster.py", "clipcifar/explorer/serve.py"
    asking = offenders(SOURCES, NETWORK | PORTS)
    assert {path for path, used in asking.items() if used - WORDS} == {
        "clipcifar/datasets/download.py",
        "clipcifar/datasets/tar_shards.py",
        "clipcifar/weights/hub.py",
        cluster,
        explorer,
    }
    assert offenders(SOURCES, PORTS).keys() == {cluster, explorer}
    assert re.findall(r"\bsocket\.(\w+)", (ROOT / cluster).read_text()) == ["create_connection"]
    assert re.findall(r"\.bind\((.*)\)", (ROOT / explorer).read_text()) == ["(HOST, port)"]
    assert re.findall(r"^HOST = (.*)$", (ROOT / explorer).read_text(), flags=re.M) == ['"127.0.0.1"']


def prints_on_stderr(path: Path) -> list[int]:
    """Lines that print more than a literal on standard error, where no stream makes names harmless."""
    calls = [node for node in nodes(path) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if isinstance(call.func, ast.Name)
        and call.func.id == "print"
        and any(word.arg == "file" for word in call.keywords)
        and not all(isinstance(argument, ast.Constant) for argument in call.args)
    ]


def test_what_is_said_on_standard_error_goes_through_one_door(tmp_path: Path) -> None:
    """So that no name of a file or class in it steers the terminal (core/terminal.py)."""
    assert {name(path) for path in SOURCES if prints_on_stderr(path)} == {
        "clipcifar/core/errors.py",
        "clipcifar/core/terminal.py",
    }
    (tmp_path / "a.py").write_text('print("x", file=f)\nprint(f"{x}", file=sys.stderr)\nprint(x)\n')
    assert prints_on_stderr(tmp_path / "a.py") == [2]


def test_only_the_towers_and_what_resolves_weights_import_open_clip() -> None:
    importers = [Path(path) for path in offenders(SOURCES, {"open_clip"})]
    outside = {path.as_posix() for path in importers if path.parent.as_posix() != "clipcifar/weights"}
    assert outside == {f"clipcifar/backbone/{name}.py" for name in ("blocks", "text_tower", "towers")}


def test_only_project_imports_dvc_and_inside_functions() -> None:
    assert {Path(path).parent.as_posix() for path in offenders(SOURCES, {"dvc"})} == {"clipcifar/project"}
    for path in (ROOT / "clipcifar" / "project").glob("*.py"):
        top = [
            node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert not any("dvc" in ast.unparse(node).split()[1].split(".") for node in top), path


def test_nothing_is_loaded_or_run_that_the_source_does_not_name() -> None:
    assert offenders(SOURCES, DYNAMIC | {"subprocess"}) == {
        # `dvc repro`, in a list of words
        "clipcifar/project/relay.py": {"subprocess", "subprocess.Popen", "subprocess.DEVNULL"}
    }
    calls = [(name(path), node) for path in SOURCES for node in nodes(path) if isinstance(node, ast.Call)]
    wrong = []
    for path, call in calls:
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        unsafe = ast.unparse(call.func) == "torch.load" and keywords.get("weights_only") != "True"
        formats = isinstance(call.func, ast.Attribute) and call.func.attr == "format"
        pickled = keywords.get("allow_pickle", "False") != "False"
        if unsafe or formats or pickled or "shell" in keywords:
            wrong.append((path, call.lineno))
    assert wrong == []


def test_the_checks_above_would_see_what_they_look_for(tmp_path: Path) -> None:
    source = tmp_path / "bad.py"
    source.write_text("from sys import argv\nimport os, pickle\nos.getcwd()\nexec('1')\n")
    assert names_used(source) & AMBIENT == {"sys.argv", "os.getcwd"}
    assert names_used(source) & DYNAMIC == {"exec", "pickle"}


def test_variables_are_called_by_what_they_hold(tmp_path: Path) -> None:
    assert [(name(path), *where) for path in SOURCES for where in vague(path)] == []
    source = tmp_path / "bad.py"  # negative control, first with what is no offence
    source.write_text(
        "class A:\n    found: int\n    def f(self, *, ones):\n        return self.found, 'one', ones(one=1)\n"
        "def g(one):\n    found = [one for one in (x := one)]\n    try:\n        return found\n"
        "    except OSError as found:\n        with found as (one, _):\n            pass\n"
    )
    assert vague(source) == [(5, "one"), (6, "found"), (6, "one"), (9, "found"), (10, "one")]


BLOCKED = (
    "torch",
    "open_clip",
    "sklearn",
    "scipy",
    "torchvision",
    "PIL",
    "pandas",
    "dvc",
    "tqdm",
    "requests",
)
RUN = """
import sys
for blocked in {blocked!r}:
    sys.modules[blocked] = None  # importing it now fails
sys.argv = {argv!r}
import runpy
runpy.run_module("stages.{stage}", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("stage", "outputs", "works"),
    [
        ("zero_shot", ["p.h5", "m.json", "details/m.json", "plots"], True),
        ("mlp_probe", ["head.h5", "p.h5", "m.json", "details/m.json", "plots"], False),
    ],
)
def test_zero_shot_runs_to_its_end_without_torch_and_the_like(
    stage: str, outputs: list[str], works: bool, tmp_path: Path
) -> None:
    write_embeddings(tmp_path)
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    overlay(settings, {"model": {"name": "tiny", "pretrained": None}, "prompts": {"active": "photo"}})
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    argv = [stage, "images", *(["texts"] if works else []), "splits.h5", *outputs]
    code = RUN.format(blocked=BLOCKED, argv=argv, stage=stage)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.returncode == 0) == works, done.stderr
    assert (tmp_path / "m.json").exists() == works
    assert works or "import of torch halted" in done.stderr
