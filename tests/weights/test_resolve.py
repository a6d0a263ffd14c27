"""Every source of weights ends up in one folder format, and what cannot be trusted is refused."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError

from clipcifar.backbone.towers import Backbone
from clipcifar.core import files, first_use
from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.core.params import NO_PATH
from clipcifar.store.fields import check_embeddings
from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE, ModelDescription, ModelParams, check_requested
from clipcifar.weights import checkpoint, pins, resolve
from clipcifar.weights.hub import TRIES, candidates, fetch_tokenizer
from clipcifar.weights.resolve import Pin
from stages import fetch_model
from tests.support.local_server import Server, serving

CPU = torch.device("cpu")


def _model(name: str, pretrained: str | None = None, path: str = NO_PATH, **more: Any) -> ModelParams:
    return ModelParams(name, pretrained, path, **{"seed": 0, "allow_pickle": False, **more})


def _local(folder: Path) -> ModelParams:
    return _model(f"local-dir:{folder}", path=str(folder))


def _refused(model: ModelParams, target: Path, error: type[Exception] = ConfigError) -> str:
    with pytest.raises(error) as caught:
        resolve.fetch_model(model, target)
    return str(caught.value)


def _copy(source: Path, target: Path) -> Path:
    target.mkdir()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        (target / name).write_bytes((source / name).read_bytes())
    return target


def test_a_folder_is_taken_as_it_is(tiny_clip: Path, tmp_path: Path) -> None:
    resolve.fetch_model(_local(tiny_clip), tmp_path / "w")
    assert (tmp_path / "w" / WEIGHTS_FILE).read_bytes() == (tiny_clip / WEIGHTS_FILE).read_bytes()
    assert json.loads((tmp_path / "w" / CONFIG_FILE).read_text()) == json.loads(
        (tiny_clip / CONFIG_FILE).read_text()
    )
    assert Backbone.load(tmp_path / "w", CPU).context_length == 32


def test_what_a_folder_lacks_is_named(tiny_clip: Path, tmp_path: Path) -> None:
    folder, target = _copy(tiny_clip, tmp_path / "f"), tmp_path / "w"
    assert f"set model.path: {folder}" in _refused(_model(f"local-dir:{folder}"), target)
    assert "set it to null" in _refused(_model(f"local-dir:{folder}", "openai", str(folder)), target)
    (folder / "other.safetensors").write_bytes(b"")
    resolve.fetch_model(_local(folder), target)  # the usual name wins
    (folder / WEIGHTS_FILE).rename(folder / "third.safetensors")
    assert "2 safetensors files" in _refused(_local(folder), target)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    refused = _refused(_local(folder), target)
    assert "holds a config and no weights" in refused
    assert f"put them beside it, as {WEIGHTS_FILE}" in refused
    (folder / CONFIG_FILE).write_text("{}")
    assert "not an open_clip config" in _refused(_local(folder), target, DataError)
    (folder / CONFIG_FILE).unlink()
    assert CONFIG_FILE in _refused(_local(folder), target)


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.5, 0.5]},
        {"mean": "abc"},
        {"mean": [float("nan")] * 3},
        {"std": [0.3, 0.0, 0.3]},
        {"fill_color": [1, 2]},
        {"resize_mode": "crop"},
    ],
    ids=str,
)
def test_a_config_with_senseless_preprocessing_is_bad_data(
    tiny_clip: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    folder = _copy(tiny_clip, tmp_path / "f")
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["preprocess_cfg"].update(change)
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    settings = {"model": asdict(_local(folder))}
    with pytest.raises(DataError):
        fetch_model.main(settings, tmp_path / "w", tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_unknown_architectures_and_tags_get_a_suggestion(tmp_path: Path) -> None:
    assert "did you mean ViT-B-32?" in _refused(_model("ViT-B-23", "openai"), tmp_path)
    assert "did you mean laion2b_s34b_b79k?" in _refused(_model("ViT-B-32", "laion2b_s34b_b79"), tmp_path)
    # A tag of the other activation alone, and an architecture that has none: no tag of its own is near.
    assert "ViT-B-32 has them" in _refused(_model("ViT-B-32-quickgelu", "laion2b_e16"), tmp_path)
    assert "knows none for ViT-S-16" in _refused(_model("ViT-S-16", "openai"), tmp_path)
    assert "not a file" in _refused(_model("ViT-B-32", None, str(tmp_path / "nope.safetensors")), tmp_path)


def test_weights_trained_with_another_activation_are_refused_by_name(tmp_path: Path) -> None:
    assert "use ViT-B-32-quickgelu" in _refused(_model("ViT-B-32", "openai"), tmp_path)


def test_weights_trained_with_the_same_activation_are_taken(tiny_clip: Path, tmp_path: Path) -> None:
    model = _model("ViT-B-32-quickgelu", "openai", str(tiny_clip / WEIGHTS_FILE))
    resolve.fetch_model(model, tmp_path)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    assert config["model_cfg"]["quick_gelu"] is True
    assert config["preprocess_cfg"]["mean"][0] == pytest.approx(0.48145466)


def test_a_pinned_file_must_have_its_digest(tiny_clip: Path, tmp_path: Path) -> None:
    file = tiny_clip / WEIGHTS_FILE
    message = _refused(_model("ViT-B-32", "laion2b_s34b_b79k", str(file)), tmp_path, DataError)
    pin = resolve.PINS["ViT-B-32", "laion2b_s34b_b79k"]
    for part in (pin.sha256, pin.source, files.file_sha256(file), "model.pretrained: null"):
        assert part in message
    assert file.exists()


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B/32"])
@pytest.mark.parametrize("tag", ["laion2b-s34b-b79k", "LAION2B_S34B_B79K", "Laion2B-s34B_b79K"])
def test_a_pin_holds_for_every_spelling_that_open_clip_takes(
    tiny_clip: Path, tmp_path: Path, name: str, tag: str
) -> None:
    message = _refused(_model(name, tag, str(tiny_clip / WEIGHTS_FILE)), tmp_path, DataError)
    assert resolve.PINS["ViT-B-32", "laion2b_s34b_b79k"].sha256 in message


def test_other_weights_have_no_pin() -> None:
    """The negative control: neither another tag nor another architecture is held to it."""
    pin = resolve.PINS["ViT-B-32", "laion2b_s34b_b79k"]
    repository = open_clip.get_pretrained_cfg("ViT-B-32", "laion2b_s34b_b79k")["hf_hub"].strip("/")
    assert pins.of_repository(repository) is pins.of_repository(repository.upper()) is pin
    held = [pair for pair in open_clip.list_pretrained() if pins.of_tag(*pair)]
    assert held == [("ViT-B-32", "laion2b_s34b_b79k")]
    assert pins.of_tag("ViT-B-32", None) is None
    assert pins.of_repository("laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K") is None


class _Payload:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.target, "executed"))


def test_a_pickle_with_a_payload_is_never_executed(tmp_path: Path) -> None:
    witness, file = tmp_path / "witness", tmp_path / "w.bin"
    file.write_bytes(pickle.dumps({"state_dict": _Payload(witness)}))
    torch.save({"x": _Payload(witness)}, tmp_path / "zip.bin")
    for name in (file, tmp_path / "zip.bin"):
        assert "allow_pickle" in _refused(_model("ViT-B-32", None, str(name)), tmp_path / "t")
        message = _refused(_model("ViT-B-32", None, str(name), allow_pickle=True), tmp_path / "t", DataError)
        assert "plain tensors" in message
    assert not witness.exists()
    pickle.loads(file.read_bytes())  # negative control: the payload does work
    assert witness.read_text() == "executed"


def test_a_plain_pickle_is_read_where_it_is_allowed(tiny_clip: Path, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(tiny_clip / WEIGHTS_FILE)
    torch.save({"state_dict": state}, tmp_path / "w.pt")
    resolve.fetch_model(_model("ViT-B-32", None, str(tmp_path / "w.pt"), allow_pickle=True), tmp_path / "t")
    stored = safetensors.torch.load_file(tmp_path / "t" / WEIGHTS_FILE)
    assert all(torch.equal(stored[name], state[name]) for name in state)


def test_a_file_without_a_tensor_is_bad_data(tiny_clip: Path, tmp_path: Path) -> None:
    """Well-formed, as far as the header goes; tests/weights/test_tensor_file.py has those that are not."""
    folder = _copy(tiny_clip, tmp_path / "f")
    (folder / WEIGHTS_FILE).write_bytes(struct.pack("<Q", 2) + b"{}")
    assert "its 0 tensors are called nothing" in _refused(_local(folder), tmp_path / "w", DataError)


def test_nan_in_the_weights_shows_in_the_first_embedding(tiny_clip: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_clip, tmp_path / "f")
    state = safetensors.torch.load_file(folder / WEIGHTS_FILE)
    state["visual.proj"][0, 0] = float("nan")
    safetensors.torch.save_file(state, folder / WEIGHTS_FILE)
    images = torch.zeros((1, 3, 32, 32), dtype=torch.uint8)
    embedding = Backbone.load(folder, CPU).encode_images(images).numpy()
    with pytest.raises(DataError, match="is not a unit vector"):
        check_embeddings(embedding.astype(np.float32), ["a.jpg"], what="image")


def test_the_stage_describes_what_it_resolved(tiny_clip: Path, tmp_path: Path) -> None:
    settings = {
        "model": {
            "name": f"local-dir:{tiny_clip}",
            "pretrained": None,
            "path": str(tiny_clip),
            "seed": 0,
            "allow_pickle": False,
        }
    }
    fetch_model.main(settings, tmp_path / "w", tmp_path / "m.json")
    found = ModelDescription.read(tmp_path / "m.json")
    assert found.weights_sha256 == files.file_sha256(tiny_clip / WEIGHTS_FILE)
    assert found.preprocess["mean"] == [0.5, 0.4, 0.3]
    assert (found.context_length, found.pretrained) == (32, "")
    assert found.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    check_requested(found.attributes(), _local(tiny_clip))
    with pytest.raises(DataError, match="asks for 'ViT-B-32'"):
        check_requested(found.attributes(), _model("ViT-B-32"))


def test_weights_of_another_architecture_name_the_key_to_change(tiny_clip: Path, tmp_path: Path) -> None:
    settings = {
        "model": {
            "name": "ViT-B-32",
            "pretrained": None,
            "path": str(tiny_clip / WEIGHTS_FILE),
            "seed": 0,
            "allow_pickle": False,
        }
    }
    with pytest.raises(DataError) as caught:
        fetch_model.main(settings, tmp_path / "w", tmp_path / "m.json")
    assert "params.yaml: model" in str(caught.value)
    assert "ViT-B-32" in str(caught.value)
    assert not (tmp_path / "m.json").exists()


@pytest.fixture
def hub(tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """An imitation of the hub on the loopback that holds one repository in open_clip's format."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between tries
    with serving() as server:
        server.headers = {"X-Repo-Commit": "c" * 40}
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            server.files[f"/org/tiny/resolve/main/{name}"] = (tiny_clip / name).read_bytes()
            server.files[f"/org/pinned/resolve/{'d' * 40}/{name}"] = (tiny_clip / name).read_bytes()
        constants = huggingface_hub.constants
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        yield server


def test_a_hub_repository_is_downloaded_and_its_revision_kept(
    hub: Server, tiny_clip: Path, tmp_path: Path
) -> None:
    found = resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w")
    assert (found.source, found.revision) == ("hf-hub:org/tiny", "c" * 40)
    assert (tmp_path / "w" / WEIGHTS_FILE).read_bytes() == (tiny_clip / WEIGHTS_FILE).read_bytes()
    assert Backbone.load(tmp_path / "w", CPU).context_length == 32


def test_a_pinned_tag_asks_for_its_revision(
    hub: Server, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_cache: Path
) -> None:
    pin = Pin(files.file_sha256(tiny_clip / WEIGHTS_FILE), "d" * 40, "made here")
    monkeypatch.setitem(resolve.PINS, ("ViT-B-32", "laion2b_s34b_b79k"), pin)
    tag = {
        "hf_hub": "org/pinned/",
        "mean": (0.1, 0.2, 0.3),
        "std": (1, 1, 1),
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda name, pretrained: tag)
    resolve.fetch_model(_model("ViT-B-32", "laion2b_s34b_b79k"), tmp_path / "w")
    assert any(f"/resolve/{'d' * 40}/" in request for request in hub.requests)
    config = json.loads((tmp_path / "w" / CONFIG_FILE).read_text())
    assert config["preprocess_cfg"]["resize_mode"] == "squash"
    assert config["model_cfg"]["embed_dim"] == 512
    monkeypatch.setitem(resolve.PINS, ("ViT-B-32", "laion2b_s34b_b79k"), Pin("0" * 64, "d" * 40, "made here"))
    assert "made here" in _refused(_model("ViT-B-32", "laion2b_s34b_b79k"), tmp_path / "w2", DataError)
    assert not (own_cache / "known_files.json").exists()  # a refused file is not trusted from then on


def test_the_repository_of_a_pinned_tag_is_held_to_the_same_pin(
    hub: Server, tiny_clip: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hf-hub:<repository> asks for the same file by another name."""
    name = "LAION/CLIP-ViT-B-32-laion2B-s34B-b79K"
    for file, revision in ((CONFIG_FILE, "main"), (WEIGHTS_FILE, "d" * 40), (WEIGHTS_FILE, "main")):
        hub.files[f"/{name}/resolve/{revision}/{file}"] = (tiny_clip / file).read_bytes()
    key = ("ViT-B-32", "laion2b_s34b_b79k")
    monkeypatch.setitem(resolve.PINS, key, Pin("0" * 64, "d" * 40, "made here"))
    assert "made here" in _refused(_model(f"hf-hub:{name}"), tmp_path / "w", DataError)
    assert not (tmp_path / "w" / WEIGHTS_FILE).exists()
    assert set(first_use.known_files()) == {f"{name}/{CONFIG_FILE}"}
    pin = Pin(files.file_sha256(tiny_clip / WEIGHTS_FILE), "d" * 40, "made here")
    monkeypatch.setitem(resolve.PINS, key, pin)
    assert resolve.fetch_model(_model(f"hf-hub:{name}"), tmp_path / "w").revision
    assert any(f"/resolve/{'d' * 40}/{WEIGHTS_FILE}" in request for request in hub.requests)


def test_an_unpinned_tag_is_trusted_on_its_first_use(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda name, pretrained: {"hf_hub": "org/tiny/"})
    resolve.fetch_model(_model("ViT-B-32", "other"), tmp_path / "w")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub2"))
    hub.files[f"/org/tiny/resolve/main/{WEIGHTS_FILE}"] += b" "
    message = _refused(_model("ViT-B-32", "other"), tmp_path / "w2", DataError)
    assert f"org/tiny/{WEIGHTS_FILE} has sha256" in message


def test_a_tag_that_is_only_at_an_address_is_not_fetched(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("open_clip.get_pretrained_cfg", lambda name, pretrained: {"url": f"{hub.url}/w.pt"})
    assert "set model.path to it" in _refused(_model("ViT-B-32", "other"), tmp_path / "w")
    assert hub.requests == []


def test_a_repository_without_safetensors_says_what_else_there_is(hub: Server, tmp_path: Path) -> None:
    del hub.files[f"/org/tiny/resolve/main/{WEIGHTS_FILE}"]
    assert "set model.allow_pickle: true" in _refused(_model("hf-hub:org/tiny"), tmp_path)
    message = _refused(_model("hf-hub:org/tiny", allow_pickle=True), tmp_path)
    assert "has none of open_clip_model.safetensors, open_clip_pytorch_model.bin" in message
    assert "allow_pickle" not in message  # it is set


def test_a_repository_in_another_format_is_told(hub: Server, tmp_path: Path) -> None:
    del hub.files[f"/org/tiny/resolve/main/{CONFIG_FILE}"]
    message = _refused(_model("hf-hub:org/tiny"), tmp_path)
    assert "not in open_clip's format" in message
    assert "allow_pickle" not in message


def _asked(hub: Server, part: str) -> list[str]:
    return [request for request in hub.requests if part in request]


def test_a_hub_that_fails_for_a_moment_is_asked_again(hub: Server, tmp_path: Path) -> None:
    hub.faults = [503, 503]
    assert resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w").revision == "c" * 40


def test_an_unreachable_hub_is_an_environment_fault_with_the_manual_way(hub: Server, tmp_path: Path) -> None:
    hub.faults = [503] * 50
    message = _refused(_model("hf-hub:org/tiny"), tmp_path, EnvironmentFault)
    for part in (CONFIG_FILE, "503", "model.path", "local-dir:", "make demo"):
        assert part in message
    assert len(_asked(hub, CONFIG_FILE)) == TRIES


def test_a_hub_that_never_answers_is_given_up_after_bounded_waits(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left to itself, the hub's client goes on for minutes."""
    monkeypatch.setattr("clipcifar.weights.hub.TIMEOUT_S", 0.2)
    hub.faults = ["stall"] * 50
    assert "timed out" in _refused(_model("hf-hub:org/tiny"), tmp_path, EnvironmentFault)
    assert len(_asked(hub, CONFIG_FILE)) == len(hub.requests) == TRIES


def test_weights_that_break_off_are_an_environment_fault(hub: Server, tmp_path: Path) -> None:
    class CutAnswers(list[int | str]):
        """Whatever asks for the weights' bytes gets half of them."""

        def __bool__(self) -> bool:
            return hub.requests[-1].startswith("GET") and WEIGHTS_FILE in hub.requests[-1]

        def pop(self, index: Any = 0) -> str:
            return "cut"

    hub.faults = CutAnswers()
    message = _refused(_model("hf-hub:org/tiny"), tmp_path / "w", EnvironmentFault)
    assert f"could not download {WEIGHTS_FILE}" in message
    assert not (tmp_path / "w" / WEIGHTS_FILE).exists()
    assert len(_asked(hub, f"GET /org/tiny/resolve/main/{WEIGHTS_FILE}")) < 20


def test_offline_mode_asks_nobody(hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "offline mode" in _refused(_model("hf-hub:org/tiny"), tmp_path, EnvironmentFault)
    assert hub.requests == []


def test_what_was_downloaded_once_is_used_offline(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "a")
    hub.requests.clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "b").revision == "c" * 40
    assert hub.requests == []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_unreachable_tokenizer_is_not_left_out_in_silence(hub: Server, tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text("{}")
    hub.files["/api/models/org/words"] = b"{}"
    hub.faults = [503] * 50
    with pytest.raises(EnvironmentFault, match="the tokenizer of org/words"):
        fetch_tokenizer({"text_cfg": {"hf_tokenizer_name": "org/words"}}, tmp_path)
    assert len(_asked(hub, "/api/models/org/words")) == TRIES


def test_a_repository_takes_neither_a_tag_nor_a_path(hub: Server, tmp_path: Path) -> None:
    assert "set it to null" in _refused(_model("hf-hub:org/tiny", "openai"), tmp_path)
    message = _refused(_model("hf-hub:org/tiny", path="/w/file.safetensors"), tmp_path)
    assert "params.yaml: model.path" in message
    assert hub.requests == []


def test_a_pickle_in_a_repository_is_read_only_where_it_is_allowed(
    hub: Server, tiny_clip: Path, tmp_path: Path
) -> None:
    state = safetensors.torch.load_file(tiny_clip / WEIGHTS_FILE)
    del hub.files[f"/org/tiny/resolve/main/{WEIGHTS_FILE}"]
    pickled = "open_clip_pytorch_model.bin"
    torch.save(state, tmp_path / pickled)
    hub.files[f"/org/tiny/resolve/main/{pickled}"] = (tmp_path / pickled).read_bytes()
    assert "allow_pickle" in _refused(_model("hf-hub:org/tiny"), tmp_path / "w")
    assert _asked(hub, pickled) == []
    resolve.fetch_model(_model("hf-hub:org/tiny", allow_pickle=True), tmp_path / "w")
    stored = safetensors.torch.load_file(tmp_path / "w" / WEIGHTS_FILE)
    assert all(torch.equal(stored[name], state[name]) for name in state)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_repository_whose_files_change_after_their_first_use_is_refused(
    hub: Server, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w")
    hub.headers = {"X-Repo-Commit": "e" * 40}
    path = f"/org/tiny/resolve/main/{name}"
    hub.files[path] = hub.files[path] + b" "
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub2"))
    message = _refused(_model("hf-hub:org/tiny"), tmp_path / "w2", DataError)
    assert f"org/tiny/{name} has sha256" in message
    assert "first used" in message
    (own_cache / "known_files.json").unlink()
    if name == CONFIG_FILE:  # the longer weights are not readable
        resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w3")


@pytest.fixture
def words(hub: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A repository with a tokenizer, of no use, and the config of a text tower of another library."""
    monkeypatch.setattr(resolve, "_require_working", lambda config, folder: None)
    names = ("tokenizer.json", "vocab.txt", "config.json", "code.py")
    info = {"id": "org/words", "sha": "c" * 40, "siblings": [{"rfilename": name} for name in names]}
    for path in ("", "/revision/main"):
        hub.files[f"/api/models/org/words{path}"] = json.dumps(info).encode()
    for name in names:
        for revision in ("main", "c" * 40):
            hub.files[f"/org/words/resolve/{revision}/{name}"] = b"{}"
    config = json.loads(hub.files[f"/org/tiny/resolve/main/{CONFIG_FILE}"])
    config["model_cfg"]["text_cfg"].update(hf_tokenizer_name="org/words", hf_model_name="org/words")
    hub.files[f"/org/tiny/resolve/main/{CONFIG_FILE}"] = json.dumps(config).encode()
    return hub


def test_tokenizer_and_text_config_are_placed_in_the_folder_and_nothing_else(
    words: Server, tmp_path: Path
) -> None:
    resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w")
    placed = {path.relative_to(tmp_path / "w").as_posix() for path in (tmp_path / "w").rglob("*")}
    assert placed - {"text_config"} == {
        CONFIG_FILE,
        WEIGHTS_FILE,
        "tokenizer.json",
        "vocab.txt",
        "config.json",
        "text_config/config.json",
    }
    text = json.loads((tmp_path / "w" / CONFIG_FILE).read_text())["model_cfg"]["text_cfg"]
    assert text["hf_model_name"] == str(tmp_path / "w" / "text_config")  # whoever loads it asks no hub
    assert _asked(words, "code.py") == []
    resolve.fetch_model(_local(tmp_path / "w"), tmp_path / "again")  # a folder that names its own file
    assert (tmp_path / "again" / "text_config" / "config.json").read_bytes() == b"{}"


def test_the_config_of_a_tokenizer_breaks_no_record_of_its_files_that_is_older(
    words: Server, tmp_path: Path
) -> None:
    resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w")
    known = first_use.known_files()
    key = "org/words: which tokenizer files"
    assert known[key] == files.sha256_of(["tokenizer.json", "vocab.txt"])  # as before it travelled with them
    assert known["org/words/config.json"] == hashlib.sha256(b"{}").hexdigest()
    path = files.cache_folder() / first_use.RECORD
    older = {name: digest for name, digest in known.items() if name != "org/words/config.json"}
    files.write_json(path, older)
    resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w2")
    assert first_use.known_files() == known


@pytest.mark.parametrize("kind", ["changed", "added", "text config"])
def test_what_belongs_to_a_tokenizer_or_text_tower_is_trusted_on_first_use_as_well(
    words: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    resolve.fetch_model(_model("hf-hub:org/tiny"), tmp_path / "w")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub2"))
    changed = {"changed": "vocab.txt", "added": "special_tokens_map.json", "text config": "config.json"}[kind]
    for revision in ("main", "c" * 40):
        words.files[f"/org/words/resolve/{revision}/{changed}"] = b"{ }"
    for path in ("", "/revision/main"):
        info = json.loads(words.files[f"/api/models/org/words{path}"])
        info["siblings"].append({"rfilename": changed})
        words.files[f"/api/models/org/words{path}"] = json.dumps(info).encode()
    message = _refused(_model("hf-hub:org/tiny"), tmp_path / "w2", DataError)
    named = {"changed": "org/words/vocab.txt has", "added": "which tokenizer files", "text config": changed}
    assert named[kind] in message
    assert "first used" in message
    assert not list((tmp_path / "w2").glob("vocab*"))


def test_a_hub_that_is_lost_between_answer_and_download_is_not_taken_for_one_without_the_file(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To its client that is an entry that was not found, too."""

    def lost(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("the network is gone")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lost)
    message = _refused(_model("hf-hub:org/tiny"), tmp_path, EnvironmentFault)
    assert f"could not download {CONFIG_FILE} of org/tiny: the network is gone" in message


@pytest.mark.parametrize(
    ("filename", "allow_pickle", "expected"),
    [
        ("", False, [WEIGHTS_FILE]),
        ("open_clip_pytorch_model.bin", True, [WEIGHTS_FILE, "open_clip_pytorch_model.bin"]),
        ("vit_b_32.pt", False, ["vit_b_32.safetensors"]),
        ("vit_b_32.pt", True, ["vit_b_32.safetensors", "vit_b_32.pt"]),
    ],
)
def test_safetensors_are_asked_for_first_whatever_the_tag_names(
    filename: str, allow_pickle: bool, expected: list[str]
) -> None:
    assert candidates(filename, allow_pickle) == expected


def test_weights_that_cannot_be_written_are_an_environment_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What safetensors makes of a full disk is an error of its own, and no damaged weights."""

    def full(*_: object) -> None:
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(EnvironmentFault, match="No space left on device") as caught:
        resolve.fetch_model(_model("ViT-B-32"), tmp_path / "w")
    assert caught.value.where == str(tmp_path / "w" / WEIGHTS_FILE)


def _store(folder: Path, store: Path, *, name: str) -> None:
    """The files of a folder moved to a store and linked to, as DVC's cache and the hub's have them."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        content = path.read_bytes()
        md5 = hashlib.md5(content).hexdigest()
        names = {"DVC": f"files/md5/{md5[:2]}/{md5[2:]}", "hub": f"blobs/{files.file_sha256(path)}"}
        target = store / names.get(name, path.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        path.unlink()
        if name == "hard":
            path.hardlink_to(target)
        else:
            path.symlink_to(os.path.relpath(target, path.parent) if name == "hub" else target)


@pytest.mark.parametrize("kind", ["DVC", "hub", "hard", "another folder"])
@pytest.mark.parametrize("of", ["local-dir", "path", "pickle"])
def test_links_are_read_as_what_they_lead_to(kind: str, of: str, tiny_clip: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_clip, tmp_path / "f")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "merges.txt").write_text("a b")
    torch.save(safetensors.torch.load_file(folder / WEIGHTS_FILE), folder / "w.pt")
    models = {
        "local-dir": _local(folder),
        "path": _model("ViT-B-32-quickgelu", "openai", str(folder / WEIGHTS_FILE)),
        "pickle": _model("ViT-B-32-quickgelu", "openai", str(folder / "w.pt"), allow_pickle=True),
    }

    def fetched(name: str) -> dict[str, bytes]:
        resolve.fetch_model(models[of], tmp_path / name)
        made = [path for path in (tmp_path / name).rglob("*") if not path.is_dir()]
        assert not [path for path in made if path.is_symlink() or path.stat().st_nlink > 1]
        return {path.relative_to(tmp_path / name).as_posix(): path.read_bytes() for path in made}

    plain = fetched("plain")
    assert ("tokenizer.json" in plain) == ("merges.txt" in plain) == (of == "local-dir")
    _store(folder, tmp_path / "store", name=kind)
    assert fetched("linked") == plain
    (tmp_path / "elsewhere").symlink_to(folder, target_is_directory=True)
    models = {
        name: replace(model, path=model.path.replace(str(folder), str(tmp_path / "elsewhere")))
        for name, model in models.items()
    }
    models["local-dir"] = _local(tmp_path / "elsewhere")
    assert fetched("through a linked folder") == plain


@pytest.mark.parametrize("leads_to", ["secret", "nowhere", "folder", "0" * 32])
def test_a_link_among_tokenizer_files_carries_no_other_file_along(
    leads_to: str, tiny_clip: Path, tmp_path: Path
) -> None:
    folder = _copy(tiny_clip, tmp_path / "f")
    for secret in ("secret", "0" * 32):  # the second as a digest, but not where a cache files it
        (tmp_path / secret).write_text("a key")
    (tmp_path / "folder").mkdir()
    (folder / "merges.txt").symlink_to(tmp_path / leads_to)
    said = _refused(_local(folder), tmp_path / "w", DataError)
    assert f"merges.txt is a link to {tmp_path / leads_to}, which is no file of a tokenizer" in said
    assert not (tmp_path / "w" / "merges.txt").exists()


def test_a_weights_file_that_is_a_dead_link_is_told_as_one(tiny_clip: Path, tmp_path: Path) -> None:
    folder = _copy(tiny_clip, tmp_path / "f")
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).symlink_to(tmp_path / "moved")
    said = _refused(_local(folder), tmp_path / "w", EnvironmentFault)
    assert f"{WEIGHTS_FILE} is a link that leads nowhere: {tmp_path / 'moved'}" in said
    assert "dvc checkout" in said


@pytest.mark.parametrize("link", ["symbolic", "hard"])
@pytest.mark.parametrize("source", ["copied", "random", "pickle"])
def test_weights_are_never_written_through_a_link_into_dvcs_cache(
    source: str, link: str, tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a stage is run by hand: before its own runs DVC removes the links."""
    target, cache = tmp_path / "w", tmp_path / "cache"
    cache.mkdir()
    resolve.fetch_model(_local(tiny_clip), target)
    for path in list(target.iterdir()):
        path.rename(cache / path.name)
        if link == "hard":
            path.hardlink_to(cache / path.name)
        else:
            path.symlink_to(cache / path.name)
    before = {path.name: path.read_bytes() for path in cache.iterdir()}

    def written_through(tensors: Any, path: Path) -> None:  # as safetensors did before 0.8
        path.write_bytes(safetensors.torch.save(tensors))

    monkeypatch.setattr(safetensors.torch, "save_file", written_through)
    if source == "pickle":
        torch.save(safetensors.torch.load_file(tiny_clip / WEIGHTS_FILE), tmp_path / "w.pt")
        checkpoint.place(tmp_path / "w.pt", target, True)
    elif source == "random":
        checkpoint._save({"x": torch.ones(3)}, target / WEIGHTS_FILE)
    else:
        resolve.fetch_model(_local(tiny_clip), target)
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == before
    assert not (target / WEIGHTS_FILE).is_symlink()
    written = safetensors.torch.load_file(target / WEIGHTS_FILE)
    original = safetensors.torch.load(before[WEIGHTS_FILE])
    assert (written.keys() == original.keys()) == (source != "random")
