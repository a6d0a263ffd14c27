"""Which modules of this project a stage imports, directly or not, read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _module_file(name: str) -> Path | None:
    base = ROOT / Path(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imported_files(path: Path) -> set[Path]:
    """The project files that one file imports by name, anywhere in it.

    The library's own file imports what it hands out when it is asked for it, which no stage does.
    """
    if path == ROOT / "clipcifar" / "__init__.py":
        return set()
    found: set[Path] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in ("clipcifar", "stages", "studies"):
                parts = name.split(".")
                for i in range(1, len(parts) + 1):
                    file = _module_file(".".join(parts[:i]))
                    if file is not None:
                        found.add(file)
    return found


def closure(stage: Path) -> set[str]:
    """All project files that a stage needs, itself included, as paths relative to the root."""
    seen: set[Path] = set()
    todo = [stage]
    while todo:
        file = todo.pop()
        if file not in seen:
            seen.add(file)
            todo += imported_files(file)
    return {file.relative_to(ROOT).as_posix() for file in seen}
