"""Random edits of params.yaml in a finished workspace, each followed by `dvc repro` and checked.

After a good edit every result must be, byte for byte, what params.yaml alone gives from scratch. After
a broken one the message names the key, and no stage but the failed one has lost anything. Going back
to any earlier state computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.support import from_scratch
from tests.support.workspace import TEXT_SIDE, Workspace, outputs

Settings = dict[str, Any]
KINDS = ("add", "remove", "reword", "active", "model", "revert", "break", "break")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
# The words of made-up templates; every draw from them is a sentence that both models can read.
WORDS = (
    ("a", "one", "the", "[a|the]"),
    ("scan", "sketch", "photo", "[blurry|sharp] crop"),
    ("of", "with", "near"),
)


def _set(settings: Settings, name: str, *templates: object) -> None:
    settings["prompts"]["sets"][name] = {"template_mode": "shared", "templates": list(templates)}


def _own(settings: Settings, sentences: dict[str, list[str]]) -> str:
    """Give the active set sentences per class; returns where they stand."""
    name = settings["prompts"]["active"]
    values = {"template_mode": "per_class", "dataset": "digits", "sentences": sentences}
    settings["prompts"]["sets"][name] = values
    return f"prompts.sets.{name}.sentences"


def _template(settings: Settings, template: object) -> str:
    """Give the active set one template; returns where it stands."""
    name = settings["prompts"]["active"]
    _set(settings, name, template)
    return f"prompts.sets.{name}.templates[0]"


def _put(settings: Settings, section: str, key: str, value: object) -> str:
    settings[section][key] = value
    return f"{section}.{key}"


def _rename_section(settings: Settings) -> str:
    settings["promts"] = settings.pop("prompts")
    return "prompts.active"


# Each breaks settings in place and returns what the message must name.
BREAKS: dict[str, Callable[[Settings], str]] = {
    "misspelt placeholder": lambda s: _template(s, "a {classnam}."),
    "attribute of the placeholder": lambda s: _template(s, "a {classname.__class__}."),
    "open bracket": lambda s: _template(s, "a [good|bad {classname}."),
    "blank template": lambda s: _template(s, "  "),
    "a number as template": lambda s: _template(s, 7),
    "the same sentence twice": lambda s: _template(s, "[a|a] {classname}"),
    "no such set": lambda s: _put(s, "prompts", "active", "foto"),
    "a set outside the folder": lambda s: _put(s, "prompts", "active", "../../weights"),
    "active is a list": lambda s: (_put(s, "prompts", "active", ["photo"]), "stages.embed_active.deps")[1],
    "sets is a list": lambda s: _put(s, "prompts", "sets", ["photo"]),
    "unknown key": lambda s: (_put(s, "prompts", "actve", "photo"), "'actve'")[1],
    "unknown section": _rename_section,
    "set name with a dot": lambda s: (_set(s, "v1.0", "{classname}"), "prompts.sets.v1.0")[1],
    "unknown class": lambda s: _own(s, {**{name: [name] for name in DIGITS}, "ten": ["ten"]}),
    "missing class": lambda s: _own(s, {name: [name] for name in DIGITS[1:]}),
    "more than the model reads": lambda s: _template(s, "very " * 40 + "{classname}").removesuffix(
        ".templates[0]"
    ),
    "text for a number": lambda s: _put(s, "mlp_probe", "hidden", "many"),
    "out of bounds": lambda s: _put(s, "linear_probe", "max_iter", 0),
    "a path that the name denies": lambda s: _put(s, "model", "path", "data/none"),
}
NOT_YAML = ("\n  [a: :\n", "\nprompts: {}\n", "\nx: !!python/object:os.system {}\n")  # appended


class Soak:
    """One workspace, edited at random.

    Args:
        workspace: finished, with two prompt sets on the digits.
        models: folders of two models; the workspace uses the first.
        scratch: an empty folder for what is computed from scratch.
        seed: of every choice.
    """

    def __init__(self, workspace: Workspace, models: tuple[str, str], scratch: Path, *, seed: int) -> None:
        self._workspace, self._models, self._scratch = workspace, models, scratch
        self._rng = np.random.default_rng(seed)
        self._good: list[bytes] = [self._text()]
        self._from_scratch: dict[bytes, dict[str, bytes]] = {}
        self._at = self._text()  # the last state that worked
        self._results = outputs(workspace)
        self._failed: set[str] = set()  # stages that failed since
        self._outs = _outs(workspace)
        self._deck: list[str] = []
        self.counts = {"from scratch": 0, "nothing ran": 0, "refused": 0}

    def step(self) -> str:
        """One edit, `dvc repro`, and every check; returns what was done in a line."""
        if not self._deck:
            self._deck = [str(kind) for kind in self._rng.permutation(KINDS)]
        kind = self._deck.pop()
        if kind == "break":
            return self._break()
        before = yaml.safe_load(self._at)
        settings = yaml.safe_load(self._at)
        said = self._revert(settings) if kind == "revert" else self._change(kind, settings)
        text = yaml.safe_dump(settings, sort_keys=False).encode()
        known = text in self._good
        (self._workspace.folder / "params.yaml").write_bytes(text)
        with ThreadPoolExecutor(1) as beside:
            expected = beside.submit(self._computed, text)
            self._workspace.repro()
            found = outputs(self._workspace)
            assert found.keys() == expected.result().keys()
            different = [path for path, content in expected.result().items() if found[path] != content]
        assert different == [], f"{said}: {different}"
        executed = self._workspace.executed()
        if known:
            assert executed == [], said
            self.counts["nothing ran"] += 1
        else:
            self._good.append(text)
        if settings["model"] == before["model"]:
            assert set(executed) <= TEXT_SIDE, said
        self._at, self._results, self._failed = text, found, set()
        return f"{said}: {len(executed)} stages"

    def _text(self) -> bytes:
        return self._workspace.read("params.yaml")

    def _computed(self, text: bytes) -> dict[str, bytes]:
        if text not in self._from_scratch:
            folder = self._scratch / f"{len(self._from_scratch):03d}"
            self._from_scratch[text] = from_scratch.computed(folder, text)
            self.counts["from scratch"] += 1
        return self._from_scratch[text]

    def _pick(self, items: Any) -> Any:
        items = list(items)
        return items[self._rng.integers(len(items))]

    def _new_template(self) -> str:
        return (
            " ".join(self._pick(words) for words in WORDS) + " {classname}" + self._pick(("", ".", " here"))
        )

    def _revert(self, settings: Settings) -> str:
        """After a failure often to the state before it, else to any earlier one."""
        last = self._failed and self._rng.random() < 0.7
        index = self._good.index(self._at) if last else int(self._rng.integers(len(self._good)))
        settings.clear()
        settings.update(yaml.safe_load(self._good[index]))
        return f"back to state {index}"

    def _change(self, kind: str, settings: Settings) -> str:
        prompts = settings["prompts"]
        sets, others = prompts["sets"], [name for name in prompts["sets"] if name != prompts["active"]]
        if kind == "model":
            first, second = self._models
            path = second if settings["model"]["path"] == first else first
            settings["model"].update(name=f"local-dir:{path}", path=path)
            return f"model {Path(path).name}"
        if kind == "remove" and others:
            name = self._pick(others)
            del sets[name]
            return f"without {name}"
        if kind == "active" and others:
            prompts["active"] = self._pick(others)
            return f"active: {prompts['active']}"
        if kind == "reword":
            name = self._pick(sets)
            if self._rng.random() < 0.3:
                sets[name] = {"template_mode": "per_class", "dataset": "digits"}
                sets[name]["sentences"] = {digit: [f"{self._pick(('a', 'the'))} {digit}"] for digit in DIGITS}
            else:
                _set(settings, name, self._new_template())
            return f"{name} reworded"
        name = f"set{self._rng.integers(1000)}"
        _set(settings, name, self._new_template())
        return f"with {name}"

    def _break(self) -> str:
        before = yaml.safe_load(self._at)
        if self._rng.random() < 0.15:
            said, named, ours = "not YAML", "'params.yaml'", False
            text = self._at + self._pick(NOT_YAML).encode()
        else:
            said = self._pick(BREAKS)
            named = BREAKS[said](before)
            text, ours = yaml.safe_dump(before, sort_keys=False).encode(), True
        (self._workspace.folder / "params.yaml").write_bytes(text)
        done = self._workspace.repro(check=False)
        executed = self._workspace.executed()
        assert done.returncode != 0, said
        assert named in done.stderr, f"{said}: {done.stderr}"
        assert "Traceback" not in done.stderr, said
        if executed:  # else DVC refused to begin
            assert ours
            assert "error: " in done.stderr
            assert "where: params.yaml" in done.stderr
            self._failed.add(executed[-1])
        assert set(executed[:-1]) <= {"prompts"}, said
        found = outputs(self._workspace)
        lost = {out for stage in self._failed for out in self._outs[stage]}
        for path, content in self._results.items():
            if not any(path == out or path.startswith(out + "/") for out in lost):
                assert found.get(path) == content, f"{said}: {path}"
        assert found.keys() <= self._results.keys(), said
        self.counts["refused"] += 1
        return f"{said}: refused by {executed[-1] if executed else 'DVC'}"


def _outs(workspace: Workspace) -> dict[str, set[str]]:
    """What each stage makes, by its name."""
    stages = yaml.safe_load(workspace.read("dvc.yaml"))["stages"]
    return {
        name: {
            entry if isinstance(entry, str) else next(iter(entry))
            for kind in ("outs", "metrics", "plots")
            for entry in stage.get(kind, [])
        }
        for name, stage in stages.items()
    }
