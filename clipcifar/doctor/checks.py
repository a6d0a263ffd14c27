"""`clipcifar doctor`: is everything that results rest on there, and unharmed?

Every check yields what it found in one line, or an error that says what is wrong, where, and the
command that mends it. Nothing is changed. What no stage has made yet is not an error.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from clipcifar.backbone import device
from clipcifar.backbone.params import EmbedParams
from clipcifar.core import class_files, files, params
from clipcifar.core.errors import ClipcifarError, ConfigError, DataError, EnvironmentFault
from clipcifar.datasets.params import DatasetParams
from clipcifar.doctor import cache_folder, cluster as doctor_cluster, files as doctor_files
from clipcifar.doctor.files import Found
from clipcifar.methods.gda import GDAParams
from clipcifar.methods.linear_probe import LinearProbeParams
from clipcifar.methods.trained.training import TrainingParams
from clipcifar.project import dvc_cache, dvc_project, freshness, missing
from clipcifar.project.counted import has_dead_links
from clipcifar.project.outputs import check_outputs
from clipcifar.project.rewriting import spoiled_sections
from clipcifar.project.root import find_root
from clipcifar.project.state import Stale, mending, some
from clipcifar.project.studies import check_studies
from clipcifar.project.worktree import check_worktree
from clipcifar.prompts.params import PromptsParams
from clipcifar.prompts.sets import expand_sets
from clipcifar.report.params import ReportParams
from clipcifar.search.ranking import SearchParams
from clipcifar.store.classes import read_classes
from clipcifar.store.model import ModelParams
from clipcifar.store.splits import SplitParams
from clipcifar.studies.corruptions.params import CorruptionParams
from clipcifar.studies.ensemble.params import EnsembleParams
from clipcifar.studies.few_shot.params import FewShotParams
from clipcifar.studies.finetune.params import FinetuneParams
from clipcifar.studies.label_errors.params import LabelErrorsParams
from clipcifar.studies.models.params import ModelsParams
from clipcifar.studies.near_duplicates.params import NearDuplicatesParams

ACTIVATE = "make setup && source .venv/bin/activate"
ROOM = 2_000_000_000  # bytes: weights, dataset and embeddings, and DVC's copies of them
_SECTIONS: dict[str, Any] = {
    "dataset": DatasetParams,
    "split": SplitParams,
    "model": ModelParams,
    "prompts": PromptsParams,
    "search": SearchParams,
    "embed": EmbedParams,
    "gda": GDAParams,
    "linear_probe": LinearProbeParams,
    **dict.fromkeys(("mlp_probe", "projection"), TrainingParams),
    "report": ReportParams,
    "few_shot": FewShotParams,
    "ensemble": EnsembleParams,
    "models": ModelsParams,
    "label_errors": LabelErrorsParams,
    "near_duplicates": NearDuplicatesParams,
    "corruptions": CorruptionParams,
    "finetune": FinetuneParams,
}
Check = Callable[[Path, Mapping[str, Any]], Found]


def examine(folder: Path) -> Iterator[tuple[str, str | ClipcifarError]]:
    """Run every check on the project of a folder; yields its name with what it found.

    An error that two checks run into is told once. Without a project, or a readable params.yaml, there
    is no more to check than the environment.
    """
    yield from (("environment", finding) for finding in _packages())
    try:
        repository = find_root(folder)
    except ConfigError as error:
        yield "project", error
        return
    yield "project", str(repository)
    told: set[str] = set()
    try:
        settings = params.load(repository / "params.yaml")
    except ClipcifarError as error:
        yield "params.yaml", error
        return
    for name, check in _CHECKS.items():
        for finding in _guarded(check, repository, settings):
            if isinstance(finding, ClipcifarError):
                missing.explain(finding, repository)
            if isinstance(finding, str) or str(finding) not in told:
                yield name, finding
            told.add(str(finding))


def _guarded(check: Check, repository: Path, settings: Mapping[str, Any]) -> Found:
    try:
        yield from check(repository, settings)
    except ClipcifarError as error:
        yield error
    except OSError as error:
        yield files.fault(error, error.filename or repository)


def _packages() -> Found:
    listed = map(Requirement, metadata.requires("clipcifar") or [])
    needed = [item for item in listed if not item.marker or item.marker.evaluate()]
    for requirement in needed:
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            installed = "nothing"
        if installed == "nothing" or installed not in requirement.specifier:
            yield EnvironmentFault(
                f"{requirement} is needed, {installed} is installed",
                fix="pip install --constraint constraints.txt --editable .",
            )
    for command in ("dvc", "git"):
        if shutil.which(command) is None:
            yield EnvironmentFault(f"the command {command} is not found", fix=ACTIVATE)
    python = shutil.which("python")  # what the stages are started with
    if python is None or Path(python).parent.resolve() != Path(sys.executable).parent.resolve():
        yield EnvironmentFault(
            f"the command python is {python or 'not found'}, and this is {sys.executable}", fix=ACTIVATE
        )
    yield f"Python {platform.python_version()}, {len(needed)} packages needed"


def _settings(repository: Path, settings: Mapping[str, Any]) -> Found:
    for section, model in _SECTIONS.items():
        try:
            params.read(settings, section, model)
        except ConfigError as error:
            yield error
    if (path := repository / "data/classes.json").is_file():
        prompts, classes = params.read(settings, "prompts", PromptsParams), read_classes(path)
        sets = expand_sets(prompts, **classes, folder=repository / class_files.FOLDER)
        yield from sets.told(prompts.active)


def _stale(repository: Path, settings: Mapping[str, Any]) -> Found:
    """Which stages would run now; that is no fault, but the numbers of a page beside it may be older."""
    state = freshness.here(repository)
    groups: dict[tuple[str, ...], list[str]] = {}
    asked = [target for target in state.runs if target in state.asked]  # dvc.lock keeps those of before
    for target in asked:
        groups.setdefault(tuple(state.changed(target)), []).append(target)
    fresh = groups.pop((), [])
    for changed, targets in groups.items():
        run = {target: target if ":" in target else "" for target in targets}  # a study, else all
        mended = mending(Stale("", run[target], changed, state.frozen(target)) for target in targets)
        ran = f"{', '.join(targets)}: changed since they ran: {some(changed)}"
        yield f"{ran}; to bring them up to date: {mended}"
    yield f"{len(fresh)} of {len(asked)} that have run are of what lies here"


def _sweeps(repository: Path, settings: Mapping[str, Any]) -> Found:
    for section in spoiled_sections(repository / "params.yaml"):
        yield ConfigError(
            f"`dvc exp run -S` rewrites params.yaml, and would spoil the section {section!r}",
            where=f"params.yaml: {section}",
            fix="write its mappings one key a line, without braces, and no ${ or ???",
        )


def _sources(repository: Path, settings: Mapping[str, Any]) -> Found:
    """What stages need and none makes: modules, and the two paths of params.yaml."""
    project = dvc_project.read(repository)
    sources = project.sources
    sections = ("dataset", "model", "corruptions")
    asked = {section: params.read(settings, section, _SECTIONS[section]).path for section in sections}
    given = {repository / path: section for section, path in asked.items()}
    # Those of params.yaml once more: DVC names none of a study that it does not see.
    lost = [path for path in dict.fromkeys([*sources, *given]) if not path.exists()]
    added = {os.path.normpath(path): name for name, path in project.added.items()}
    kept = [path for path in dict.fromkeys([*sources, *given]) if os.path.normpath(path) in added]
    kept = [path for path in kept if path in lost or has_dead_links(path)]
    for path in kept:
        yield DataError(
            f"DVC keeps {path}, and {'it is not here' if path in lost else 'links in it lead nowhere'}",
            where=str(repository),
            fix=f"dvc checkout {shlex.quote(added[os.path.normpath(path)])}",
        )
    for path in (lost := [path for path in lost if path not in kept]):
        if path in given and asked[given[path]] != params.NO_PATH:
            key = f"{given[path]}.path"
            yield ConfigError(
                f"{key} does not exist: {path}",
                where=f"params.yaml: {key}",
                fix=f"put it there, or name another; {params.NO_PATH} stands for none",
            )
    ours = [path.relative_to(repository) for path in lost if path.is_relative_to(repository)]
    ours = [path for path in ours if repository / path not in given or str(path) == params.NO_PATH]
    if ours:
        names = " ".join(shlex.quote(str(path)) for path in ours)
        yield DataError(f"missing: {names}", where=str(repository), fix=f"git checkout HEAD -- {names}")
    yield f"{len(sources)} files and folders that the stages need"


def _device(repository: Path, settings: Mapping[str, Any]) -> Found:
    import torch

    chosen = device.choose(params.read(settings, "embed", EmbedParams).device, key="embed.device")
    name = torch.cuda.get_device_name() if chosen.type == "cuda" else f"threads: {torch.get_num_threads()}"
    yield f"{chosen.type}, {name}"


def _disk(repository: Path, settings: Mapping[str, Any]) -> Found:
    for folder in (repository, files.cache_folder()):
        try:
            if folder.exists() and not folder.is_dir():
                name = shlex.quote(str(folder))
                raise EnvironmentFault(f"{folder} is not a folder", fix=f"mv {name} {name}.old")
            files.require_writable(folder)
            files.require_space(folder, ROOM)
        except EnvironmentFault as error:
            yield error
        else:
            yield f"{shutil.disk_usage(folder).free / 1e9:,.1f} GB free in {folder}"


_CHECKS: dict[str, Check] = {
    "params.yaml": _settings,
    "sweeps": _sweeps,
    "device": _device,
    "cluster": doctor_cluster.nodes,
    "disk": _disk,
    "sources": _sources,
    "stages": _stale,
    "studies": lambda repository, settings: check_studies(repository),
    "worktree": lambda repository, settings: check_worktree(repository),
    "outputs": lambda repository, settings: check_outputs(repository),
    "dataset": doctor_files.dataset,
    "weights": doctor_files.weights,
    "embeddings": doctor_files.embeddings,
    "results": doctor_files.predictions,
    "memo": doctor_files.remembered,
    "scratch": cache_folder.scratch,
    "DVC's cache": lambda repository, settings: dvc_cache.check(repository),
}
