from __future__ import annotations

import itertools
import json
import os
import secrets
import sys
from pathlib import Path

# Small matrices on shared machines: more threads only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")
# Ray reads these when it is imported. Its clusters here let nobody else in, and its workers get their time.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")
# As `make` and an activated environment have it, whoever starts pytest.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"

import pytest
from hypothesis import HealthCheck, settings

from tests.support.once import made_once
from tests.support.workspace import Workspace, finished_workspace

# A slow machine is no fault of the code; and the fixtures that properties use hold nothing of an example.
settings.register_profile(
    "suite",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("suite")

TINY_CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
        "text_cfg": {"context_length": 32, "width": 32, "heads": 2, "layers": 2},
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.3, 0.2, 0.25],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    },
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--edits", type=int, default=6, help="random edits of test_soak.py by night")
    parser.addoption(
        "--fuzz-minutes", default=0, help="of each search in tests/faults/test_fuzz.py; 0 is one short round"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One for each core that we may use; two on one core, too, since some tests wait, and four at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2
    return min(max(cores, 2), 4)  # each takes up to 3 GB


def _is_a_card_there() -> bool:
    import torch  # which whoever needs a card has imported

    return torch.cuda.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs a card is skipped without; what takes long comes first: no worker is left alone with it."""
    needing = [item for item in items if item.get_closest_marker("cuda")]
    if needing and not _is_a_card_there():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="there is no cuda device here"))
    items.sort(key=lambda item: item.get_closest_marker("pipeline") is None)


_number = itertools.count()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees, or leaves anything in, the user's cache folder."""
    folder = tmp_path_factory.getbasetemp() / "cache" / str(next(_number))
    folder.mkdir(parents=True)
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random miniature CLIP (D = 32, context 32) in open_clip's folder format."""
    return made_once(tmp_path_factory, "tiny-clip", _write_tiny_clip)


def _write_tiny_clip(folder: Path) -> None:
    import open_clip
    import safetensors.torch
    import torch

    (folder / "open_clip_config.json").write_text(json.dumps(TINY_CONFIG))
    torch.manual_seed(0)
    model = open_clip.CLIP(**TINY_CONFIG["model_cfg"])  # type: ignore[arg-type]
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The pipeline run once on the embedded data; tests work on copies."""
    folder = made_once(tmp_path_factory, "finished", lambda folder: finished_workspace(folder / "w"))
    return Workspace(folder / "w")


LITTLE_STAGES = [
    "download",
    "prepare",
    "prompts",
    "fetch_model",
    "embed_images",
    "embed_active",
    "embed_texts",
    "embed_pool",
    "zero_shot",
    "prompt_sets",
    "prompt_weighting",
    "rank_prompts",
    "gda",
    "linear_probe",
    "mlp_probe",
    "projection",
    "report",
]


@pytest.fixture(scope="session")
def little(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same on six images a class and split, where every stage takes a fraction of a second."""
    folder = made_once(tmp_path_factory, "little", lambda folder: _run_on_few(finished.copy(folder / "w")))
    return Workspace(folder / "w")


def _run_on_few(workspace: Workspace) -> None:
    from tests.support import faults

    workspace.edit(lambda settings: settings["dataset"].update(max_per_class=6))
    workspace.edit(lambda settings: settings["split"].update(val_fraction=0.3))
    for stage in LITTLE_STAGES:
        ended = faults.run_here(workspace, stage)
        assert ended.code == 0, (stage, ended)


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path) -> Workspace:
    return finished.copy(tmp_path / "w")


@pytest.fixture
def at(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A finished run, and this process as if started in it."""
    monkeypatch.setenv("CLIPCIFAR_CACHE", workspace.environment["CLIPCIFAR_CACHE"])
    monkeypatch.setenv("PATH", workspace.environment["PATH"])
    return workspace
