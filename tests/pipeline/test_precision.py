"""Another precision on a CPU: what has to be embedded again is, and the numbers stay near."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clipcifar.store.embeddings import read_texts
from clipcifar.store.images import read_images
from tests.support.workspace import Workspace

HAS = getattr(torch.cpu, "get_capabilities", dict)()


@pytest.mark.pipeline
@pytest.mark.skipif(not HAS.get("avx512_bf16"), reason="this processor has no instructions for bf16")
def test_another_precision_embeds_images_and_sentences_again(workspace: Workspace) -> None:
    folder = workspace.folder / "data/embeddings"
    before = read_images(folder / "images"), read_texts(folder / "texts/photo.h5")
    workspace.edit(lambda settings: settings["embed"].update(precision="bf16", device="cpu"))
    embedding = {"embed_images", "embed_active", "embed_texts", "embed_pool"}
    workspace.repro(*sorted(embedding), "zero_shot")  # what comes after reads rows, whatever made them
    assert {*embedding, "zero_shot"} <= set(workspace.executed())
    after = read_images(folder / "images"), read_texts(folder / "texts/photo.h5")
    rows = [
        (before[0].test.embeddings, after[0].test.embeddings),
        (before[1].embeddings, after[1].embeddings),
    ]
    for in_fp32, in_bf16 in rows:
        cosines = (np.asarray(in_fp32) * np.asarray(in_bf16)).sum(axis=1)
        assert 0.999 < cosines.min() < 1 - 1e-6
    assert after[0].attributes["precision"] == after[1].attributes["precision"] == "bf16"


@pytest.mark.pipeline
def test_a_precision_that_the_processor_is_slow_in_stops_before_anything_is_embedded(
    workspace: Workspace,
) -> None:
    if HAS.get("avx512_fp16") or HAS.get("amx_fp16"):
        pytest.skip("this processor has instructions for fp16")
    workspace.edit(lambda settings: settings["embed"].update(precision="fp16", device="cpu"))
    said = workspace.repro(check=False)
    assert said.returncode != 0
    assert "precision fp16 is slower than fp32 on this processor" in said.stderr
    assert "params.yaml: embed.precision" in said.stderr
