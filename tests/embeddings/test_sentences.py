from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clipcifar.backbone import device_kind
from clipcifar.backbone.params import Precision
from clipcifar.backbone.towers import Backbone
from clipcifar.core import files
from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.embeddings import sentences as sentences_module
from clipcifar.embeddings.sentences import OUTPUTS, SentenceEmbedder
from clipcifar.store.embeddings import write_texts
from clipcifar.store.model import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    ModelDescription,
    check_described,
    check_weights,
    config_sha256,
)
from tests.support.made import EMBED

SENTENCES = ["a cat", "a dog"]


def _description(folder: Path) -> ModelDescription:
    weights = files.file_sha256(folder / WEIGHTS_FILE)
    return ModelDescription("m", "", "x", "", weights, config_sha256(folder), {}, 32, 10.0, [])


def _embed(folder: Path, sentences: list[str]) -> tuple[dict[str, np.ndarray], int]:
    embedder = SentenceEmbedder(_description(folder), folder, EMBED)
    return embedder.embed(dict.fromkeys(sentences, "here"))


def test_a_sentence_is_encoded_once_and_comes_back_the_same(tiny_clip: Path) -> None:
    first, new = _embed(tiny_clip, SENTENCES)
    again, none = _embed(tiny_clip, [*SENTENCES, "an eel"])
    assert (new, none) == (2, 1)
    for sentence in SENTENCES:
        assert again[sentence].tobytes() == first[sentence].tobytes()


def test_another_config_with_the_same_weights_is_another_model(tiny_clip: Path, tmp_path: Path) -> None:
    first, _ = _embed(tiny_clip, SENTENCES)
    folder = shutil.copytree(tiny_clip, tmp_path / "quick")
    config = json.loads((folder / CONFIG_FILE).read_text())
    config["model_cfg"]["quick_gelu"] = True
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    second, new = _embed(folder, SENTENCES)
    assert new == 2
    assert first["a cat"].tobytes() != second["a cat"].tobytes()
    with pytest.raises(DataError, match="config_sha256"):
        check_described(_description(tiny_clip).attributes(), _description(folder))


def test_weights_or_config_changed_behind_the_description_are_refused(
    tiny_clip: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_clip, tmp_path / "copy")
    described = _description(folder)
    check_weights(described, folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(DataError, match="the config"):
        check_weights(described, folder)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(DataError, match="missing"):
        check_weights(described, folder)


def test_an_embedding_that_is_no_unit_vector_is_not_remembered(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Backbone.encode_sentences

    def broken(self: Backbone, sentences: list[str]):  # type: ignore[no-untyped-def]
        for rows, embeddings in encode(self, sentences):
            yield rows, embeddings * np.float32("nan")

    monkeypatch.setattr(Backbone, "encode_sentences", broken)
    with pytest.raises(DataError, match="'a cat' is not a unit vector"):
        _embed(tiny_clip, ["a cat"])
    monkeypatch.setattr(Backbone, "encode_sentences", encode)
    found, new = _embed(tiny_clip, ["a cat"])
    assert new == 1
    assert np.isfinite(found["a cat"]).all()


def test_what_is_known_in_one_precision_is_not_taken_for_another(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    rows, num_new = dict[str, bytes](), list[int]()
    precisions: list[Precision] = ["fp32", "bf16"]
    for precision in 2 * precisions:
        embed = replace(EMBED, precision=precision)
        embeddings, new = SentenceEmbedder(_description(tiny_clip), tiny_clip, embed).embed({"a cat": "here"})
        rows.setdefault(precision, embeddings["a cat"].tobytes())
        assert rows[precision] == embeddings["a cat"].tobytes()
        num_new.append(new)
    assert num_new == [1, 1, 0, 0]
    assert rows["fp32"] != rows["bf16"]


def test_a_device_that_went_away_is_said_and_the_kept_answer_dropped(tiny_clip: Path) -> None:
    files.write_json(device_kind._known(), {"kind": "cuda"})
    embedder = SentenceEmbedder(_description(tiny_clip), tiny_clip, replace(EMBED, device="auto"))
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("there is a card here")
    assert embedder.kind == "cuda"
    with pytest.raises(EnvironmentFault, match="was cuda and is cpu now"):
        embedder.embed({"a cat": "here"})
    assert device_kind.device_kind("auto") == "cpu"


def test_sentences_over_the_context_do_not_fit_and_known_ones_need_no_tower(
    tiny_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "a cat " + "and a dog " * 20
    embedder = SentenceEmbedder(_description(tiny_clip), tiny_clip, EMBED)
    assert embedder.fitting([*SENTENCES, long]) == SENTENCES
    embedder.embed(dict.fromkeys(SENTENCES, "here"))
    again = SentenceEmbedder(_description(tiny_clip), tiny_clip, EMBED)
    monkeypatch.setattr(SentenceEmbedder, "load", lambda self: pytest.fail("the tower was loaded"))
    assert again.fitting([*SENTENCES, long]) == SENTENCES


def test_what_was_embedded_before_a_run_ended_is_known_to_the_next(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are of one length each; the run is stopped at the third, and its second was still unwritten."""
    encode, told = Backbone.encode_sentences, ["cat", "a cat", "such a cat"]

    def stopped(self: Backbone, sentences: list[str]):  # type: ignore[no-untyped-def]
        for number, batch in enumerate(encode(self, sentences)):
            if number == 2:
                raise MemoryError
            yield batch

    monkeypatch.setattr(sentences_module, "KEPT_AT_ONCE", 1)
    monkeypatch.setattr(Backbone, "encode_sentences", stopped)
    with pytest.raises(EnvironmentFault, match="out of memory") as caught:
        _embed(tiny_clip, told)
    assert (caught.value.exit_code, caught.value.where) == (4, "params.yaml: embed.device")
    assert "free some memory" in caught.value.fix
    monkeypatch.setattr(Backbone, "encode_sentences", encode)
    found, new = _embed(tiny_clip, told)
    assert new == 1
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path))
    again, new = _embed(tiny_clip, told)
    assert new == 3
    assert {text: row.tobytes() for text, row in found.items()} == {
        text: row.tobytes() for text, row in again.items()
    }


def _write(path: Path, embedder: SentenceEmbedder, sentences: list[str], **others: str) -> None:
    write_texts(
        path,
        embeddings=embedder.embed_rows(sentences),
        class_index=np.zeros(len(sentences), dtype=np.int64),
        sentences=sentences,
        attributes={**embedder.attributes, "class_names": '["cat"]', "prompt_set": "p", **others},
    )


def test_text_embeddings_of_the_project_are_known_where_the_memo_is_empty(
    tiny_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the set, the classes and the weights' path; not those of other code, nor a damaged file's."""
    active, texts, pool = (tmp_path / output for output in OUTPUTS)
    embedder = SentenceEmbedder(_description(tiny_clip), tiny_clip, EMBED)
    _write(texts / "a.h5", embedder, ["a cat"], model="local-dir:/elsewhere")
    _write(texts / "b.h5", embedder, ["an eel"], source_sha256="0" * 64)
    _write(texts / "c.h5", embedder, ["a newt"])
    (texts / "c.h5").write_bytes((texts / "c.h5").read_bytes()[:-9])
    _write(pool, embedder, ["a dog"])
    _write(active / "b.h5", embedder, ["a bee"])
    monkeypatch.setenv("CLIPCIFAR_CACHE", str(tmp_path / "empty"))
    asked: list[Path] = []
    monkeypatch.setattr(sentences_module, "kept_objects", lambda _, output: asked.append(output) or {})
    again = SentenceEmbedder(_description(tiny_clip), tiny_clip, EMBED, repository=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(SentenceEmbedder, "load", lambda self: pytest.fail("the tower was loaded"))
        known, new = again.embed(dict.fromkeys(SENTENCES, "here"))
    assert (new, asked) == (0, [])  # all of it lay in the workspace
    for sentence, row in known.items():
        assert row.tobytes() == embedder.embed_rows([sentence])[0].tobytes()
    assert again.embed(dict.fromkeys(["an eel", "a newt"], "here"))[1] == 2
    assert asked == []
    shutil.rmtree(texts)
    texts.mkdir()  # as a stage does before it begins
    last = SentenceEmbedder(_description(tiny_clip), tiny_clip, EMBED, repository=tmp_path)
    for sentence in ("a toad", "a frog"):
        assert last.embed({sentence: "here"})[1] == 1
        assert asked == [OUTPUTS[1]]  # once


def test_all_sentences_that_are_too_long_are_told_at_once_with_where_they_are_from(tiny_clip: Path) -> None:
    long = {f"{'cat ' * 40}{i}": f"data/sentences/own.json: cat[{i}]" for i in range(12)}
    embedder = SentenceEmbedder(_description(tiny_clip), tiny_clip, EMBED)
    with pytest.raises(ConfigError) as caught:
        embedder.embed({"a cat": "params.yaml: prompts.sets.photo.templates[0]", **long})
    lines = str(caught.value).splitlines()
    assert lines[0] == "12 faults in the sentences:"
    assert [line.split(": ")[0].strip() for line in lines[1:13]] == [f"cat[{i}]" for i in range(12)]
    assert all(" tokens, the model reads 32; shorten the sentence" in line for line in lines[1:13])
    assert lines[13] == "  where: data/sentences/own.json"
    assert embedder.embed({"a cat": "here"})[1] == 1  # nothing was embedded before
