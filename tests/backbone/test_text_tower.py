"""A row is cut where its result cannot depend on the rest, and only there."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from clipcifar.backbone import text_tower
from clipcifar.backbone.text_tower import TEXT_ROWS, Beginnings, TextTower, filled, in_batches
from clipcifar.backbone.towers import Backbone
from tests.backbone.test_towers import CPU, tiny  # noqa: F401
from tests.conftest import TINY_CONFIG

CONTEXT, EOS = 12, 40
LAYOUTS = {  # rows of 12, and how many tokens count where the highest id is read, or the first 40
    "zeros after the end": ([41, 5, 6, 40, *[0] * 8], 1, 4),
    "padding on the left": ([*[0] * 8, 39, 5, 6, 40], 12, 12),
    "the highest id is padding": ([39, 5, 6, 40, *[45] * 8], 5, 4),
    "the highest id is padding, on the left": ([*[45] * 8, 39, 5, 6, 40], 1, 12),
    "a mark closes the row": ([38, 5, 6, 40, *[0] * 7, 41], 12, 4),
    "the end is padding, too": ([5, 6, *[40] * 10], 3, 3),
    "a token above the end": ([38, 5, 47, 6, 40, *[0] * 7], 3, 5),
    "no end": ([1, 2, 3, *[0] * 9], 3, 1),
    "full": ([39, *range(1, 11), 40], 12, 12),
}


def _model(custom: bool, **text: Any) -> Any:
    config = copy.deepcopy(TINY_CONFIG["model_cfg"])
    config["text_cfg"].update(vocab_size=50, context_length=CONTEXT, eos_id=EOS, **text)  # type: ignore[index]
    torch.manual_seed(2)
    model = (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config).eval()  # type: ignore[arg-type]
    part = model.text if custom else model
    torch.nn.init.normal_(part.token_embedding.weight)
    torch.nn.init.normal_(part.positional_embedding)
    if getattr(part, "cls_emb", None) is not None:
        torch.nn.init.normal_(part.cls_emb)
    return model


def _difference(model: Any, tower: TextTower, rows: torch.Tensor) -> float:
    """The largest between whole rows in open_clip and each row by itself, cut."""
    with torch.no_grad():
        whole = model.encode_text(rows)
    lengths = tower.lengths(rows)
    cut = torch.cat([tower.encode(rows[i : i + 1, :length]) for i, length in enumerate(lengths)])
    return float((whole - cut).abs().max())


ROWS = torch.tensor([row for row, _, _ in LAYOUTS.values()])
BOTH = pytest.mark.parametrize("custom", [False, True], ids=["CLIP", "CustomTextCLIP"])


@BOTH
@pytest.mark.parametrize("pool_type", ["argmax", "eos"])
def test_every_layout_of_a_row_is_cut_after_what_is_read(custom: bool, pool_type: str) -> None:
    model = _model(custom, pool_type=pool_type)
    tower = TextTower(model, CONTEXT)
    expected = [argmax if pool_type == "argmax" else eos for _, argmax, eos in LAYOUTS.values()]
    assert tower.lengths(ROWS) == expected
    assert _difference(model, tower, ROWS) < 1e-5


@pytest.fixture(scope="module")
def towers() -> list[tuple[Any, TextTower]]:
    models = [_model(custom, pool_type=kind) for custom in (False, True) for kind in ("argmax", "eos")]
    return [(model, TextTower(model, CONTEXT)) for model in models]


@BOTH
@pytest.mark.parametrize("pool_type", ["argmax", "eos"])
def test_rows_that_begin_alike_share_what_is_made_of_their_first_tokens(custom: bool, pool_type: str) -> None:
    model = _model(custom, pool_type=pool_type)
    tower = TextTower(model, CONTEXT)
    rows = torch.tensor([[38, 5, 6, 7, i, 9, 40, *[0] * 5] for i in range(8, 20)])
    begun = tower.begin(rows[:1, :4])
    layers = len((model.text if custom else model).transformer.resblocks)
    assert begun.shape[:2] == (layers, 2)
    assert begun.shape[4] == 4
    whole, shared = tower.encode(rows[:, :7]), tower.encode(rows[:, :7], begun.expand(-1, -1, 12, -1, -1, -1))
    with torch.no_grad():
        torch.testing.assert_close(whole, model.encode_text(rows), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(shared, whole, atol=1e-5, rtol=1e-4)
    other = tower.begin(rows[:1, :4].flip(1)).expand(-1, -1, 12, -1, -1, -1)
    assert float((tower.encode(rows[:, :7], other) - whole).abs().max()) > 1e-2  # negative control


def test_a_beginning_is_embedded_once_however_many_rows_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tower = TextTower(_model(False), CONTEXT)
    begin, seen = tower.begin, []
    monkeypatch.setattr(tower, "begin", lambda tokens: (seen.append(tokens.tolist()), begin(tokens))[1])
    beginnings = [(38, i, 6, 7) for i in range(TEXT_ROWS + 4)] * 3 + [(38, 5)] * 2
    made = Beginnings(tower, beginnings, CPU)
    for ids in beginnings:
        rows = made.of([ids] * 2)
        assert rows is not None
        alone = begin(torch.tensor([ids] * TEXT_ROWS))[:, :, :2]
        assert torch.equal(rows, alone)
    assert [len(batch) for batch in seen] == [TEXT_ROWS] * 3
    assert sorted({tuple(row) for batch in seen for row in batch}) == sorted(set(beginnings))
    assert made.of([()] * 2) is None


@pytest.mark.parametrize(("rounds", "begun"), [(1, 4), (2, 8)])
def test_beginnings_are_embedded_once_when_asked_for_in_order_and_again_where_they_were_let_go(
    rounds: int, begun: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As sentences of a class's own have them, which seldom begin alike; two of four batches are kept."""
    tower = TextTower(_model(False), CONTEXT)
    begin, seen = tower.begin, []
    monkeypatch.setattr(tower, "begin", lambda tokens: (seen.append(len(tokens)), begin(tokens))[1])
    order = [(38, i % 50, i // 50, 7) for i in range(4 * TEXT_ROWS)]
    monkeypatch.setattr(text_tower, "_KEPT_BYTES", 2 * begin(torch.tensor(order[:TEXT_ROWS])).nbytes)
    made = Beginnings(tower, order, CPU)
    for batch in in_batches(order * rounds, key=len):
        made.of(filled(batch))
    assert len(seen) == begun


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_many_beginnings_are_kept_as_the_memory_meant_for_them_holds(
    custom: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    tower = TextTower(_model(custom).to(dtype), CONTEXT)
    batch = tower.begin(torch.full((TEXT_ROWS, 4), 5)).nbytes
    for held, room in ((7, 7 * batch), (6, 7 * batch - 1), (1, 0)):
        monkeypatch.setattr(text_tower, "_KEPT_BYTES", room)
        assert tower.beginnings_kept() == held


@pytest.mark.parametrize(
    ("custom", "text"), [(False, {"no_causal_mask": True}), (True, {"embed_cls": True})], ids=str
)
def test_a_tower_that_is_not_cut_has_no_beginnings(custom: bool, text: dict[str, Any]) -> None:
    uncut = TextTower(_model(custom, **text), CONTEXT)
    assert (uncut.earlier(7), uncut.beginnings_kept()) == (0, 0)
    assert [TextTower(_model(custom), CONTEXT).earlier(length) for length in (1, 2, 5, 9)] == [0, 1, 4, 4]


@settings(max_examples=25)
@given(
    rows=st.lists(st.lists(st.integers(0, 49), min_size=CONTEXT, max_size=CONTEXT), min_size=1, max_size=4)
)
def test_any_row_is_cut_exactly(rows: list[list[int]], towers: list[tuple[Any, TextTower]]) -> None:
    for model, tower in towers:
        assert _difference(model, tower, torch.tensor(rows)) < 1e-5


@pytest.mark.parametrize(
    ("custom", "text"),
    [
        (False, {"no_causal_mask": True}),
        (True, {"no_causal_mask": True}),
        (False, {"pool_type": "last"}),
        (True, {"pool_type": "last"}),
        (True, {"pool_type": "last", "no_causal_mask": True}),
        (True, {"embed_cls": True}),
    ],
    ids=str,
)
def test_a_tower_that_reads_past_the_end_is_not_cut(custom: bool, text: dict[str, Any]) -> None:
    model = _model(custom, **text)
    tower = TextTower(model, CONTEXT)
    assert tower.lengths(ROWS) == [CONTEXT] * len(ROWS)
    assert _difference(model, tower, ROWS) < 1e-5


@BOTH
def test_one_open_place_above_the_diagonal_is_enough_not_to_cut(custom: bool) -> None:
    """The mask itself is read; what a cut would have done is the negative control."""
    model = _model(custom)
    part = model.text if custom else model
    for place in ((0, 1), (3, 7), (10, 11)):
        mask = torch.full((CONTEXT, CONTEXT), -torch.inf).triu(1)
        mask[place] = 0
        part.attn_mask = mask
        tower = TextTower(model, CONTEXT)
        assert tower.lengths(ROWS) == [CONTEXT] * len(ROWS)
        assert _difference(model, tower, ROWS) < 1e-5
    part.attn_mask = torch.zeros(CONTEXT, CONTEXT)
    tower = TextTower(model, CONTEXT)
    tower._causal = True
    assert _difference(model, tower, ROWS) > 1e-2


@pytest.mark.parametrize(
    "mask",
    [
        torch.full((CONTEXT, CONTEXT), -10.0).triu(1),
        torch.ones(CONTEXT, CONTEXT).triu(1).bool(),  # open_clip makes numbers of it, which hide nothing
        torch.full((CONTEXT, CONTEXT), -torch.inf).tril(-1),
        None,
    ],
    ids=["finite", "bool", "backwards", "none"],
)
def test_a_mask_that_hides_later_tokens_but_in_part_proves_nothing(
    mask: torch.Tensor | None,
) -> None:
    model = _model(True)
    model.text.attn_mask = mask
    assert TextTower(model, CONTEXT).lengths(ROWS) == [CONTEXT] * len(ROWS)


def test_a_tower_of_another_library_is_not_cut_whatever_it_calls_its_parts() -> None:
    model = _model(True)
    other = torch.nn.Module()
    other.attn_mask, other.pool_type, other.eos_id = model.text.attn_mask, "argmax", EOS
    other.transformer = model.text.transformer
    model.text = other
    assert TextTower(model, CONTEXT).lengths(ROWS) == [CONTEXT] * len(ROWS)


class _LeftPadded:
    """open_clip's tokenizer with the row turned about: padding, then the sentence."""

    def __init__(self) -> None:
        self._plain = open_clip.SimpleTokenizer(context_length=32)
        self.context_length, self.encode = 32, self._plain.encode

    def __call__(self, texts: list[str]) -> torch.Tensor:
        rows = self._plain(texts)
        return torch.stack([row.roll(int((row == 0).sum())) for row in rows])


def test_sentences_padded_on_the_left_are_embedded_as_open_clip_would(tiny: Backbone) -> None:  # noqa: F811
    sentences = ["a cat", "a photo of a dog.", "the eel"]
    backbone = Backbone(tiny._model, tiny.preprocess, _LeftPadded(), CPU)
    with torch.no_grad():
        theirs = tiny._model.encode_text(_LeftPadded()(sentences), normalize=True).numpy()
    left, right = (_rows(side, sentences) for side in (backbone, tiny))
    assert (left * theirs).sum(axis=1).min() > 0.999999
    assert (right * theirs).sum(axis=1).min() < 0.9  # to the model the two layouts are not the same


def _rows(backbone: Backbone, sentences: list[str]) -> NDArray[np.float32]:
    rows = np.zeros((len(sentences), 32), np.float32)
    for positions, embeddings in backbone.encode_sentences(sentences):
        rows[positions] = embeddings
    return rows
