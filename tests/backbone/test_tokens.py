from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
from open_clip.tokenizer import HFTokenizer, get_clean_fn

from clipcifar.backbone.tokens import Tokens
from clipcifar.backbone.towers import Backbone
from clipcifar.core.errors import ConfigError
from tests.backbone.test_towers import CPU, tiny  # noqa: F401

CLS, BOS, EOS, PAD = 1, 2, 3, 0


class _Library:
    """What open_clip asks of a tokenizer of transformers: a token for each word, numbered as they come."""

    bos_token_id, eos_token_id, cls_token_id, sep_token_id, pad_token_id = BOS, EOS, CLS, EOS, PAD

    def __init__(self) -> None:
        self.words: dict[str, int] = {}

    def __call__(
        self, texts: str | list[str], *, add_special_tokens: bool = True, **options: Any
    ) -> SimpleNamespace | dict[str, Any]:
        marks = ([BOS], [EOS]) if add_special_tokens else ([], [])
        several = [texts] if isinstance(texts, str) else texts
        ids = [
            [self.words.setdefault(word, len(self.words) + 10) for word in text.split()] for text in several
        ]
        rows = [marks[0] + row + marks[1] for row in ids]
        return SimpleNamespace(input_ids=rows[0]) if isinstance(texts, str) else {"input_ids": rows}


def _wrapped(mode: str, *, context_length: int = 8) -> HFTokenizer:
    """open_clip's own wrapper around it."""
    wrapper = HFTokenizer.__new__(HFTokenizer)
    wrapper.tokenizer, wrapper.tokenizer_mode, wrapper.context_length = _Library(), mode, context_length
    wrapper.clean_fn, wrapper.strip_sep_token = get_clean_fn("whitespace"), False
    return wrapper


@pytest.mark.parametrize(("mode", "marks"), [("", 2), ("clips", 3), ("unheard of", 2)])
def test_a_sentence_is_counted_uncut_cleaned_and_with_all_its_marks(mode: str, marks: int) -> None:
    assert Tokens(_wrapped(mode)).count("A   photo of\na cat") == 5 + marks


def test_the_last_word_of_a_sentence_that_fits_is_in_its_row_in_the_mode_clips() -> None:
    tokens = Tokens(_wrapped("clips", context_length=8))
    fits, long = "a b c d e", "a b c d e f"
    assert (tokens.count(fits), tokens.count(long)) == (8, 9)
    assert tokens.rows([fits]).tolist() == [[BOS, 10, 11, 12, 13, 14, EOS, CLS]]
    assert tokens.rows([long]).tolist() == tokens.rows([fits]).tolist()  # what the count is there to prevent


def test_a_sentence_that_is_counted_and_made_a_row_is_encoded_once() -> None:
    tokenizer, asked = open_clip.SimpleTokenizer(context_length=12), []
    encode = tokenizer.encode
    tokenizer.encode = lambda text: asked.append(text) or encode(text)
    tokens, sentences = Tokens(tokenizer), ["a photo of a cat.", "Café au lait", "a photo of a cat."]
    counts = [tokens.count(sentence) for sentence in sentences]
    rows = tokens.rows(sentences)
    assert asked == sentences[:2]
    assert rows.equal(open_clip.SimpleTokenizer(context_length=12)(sentences))
    assert counts == (rows != 0).sum(dim=1).tolist()


@pytest.mark.parametrize("mode", ["simple", "random", "shuffle"])
def test_a_tokenizer_that_drops_tokens_for_training_drops_none_that_fit(mode: str) -> None:
    tokens = Tokens(open_clip.SimpleTokenizer(context_length=8, reduction_mask=mode))
    plain = open_clip.SimpleTokenizer(context_length=8)
    fits = "a photo of a small cat"
    assert tokens.count(fits) == 8
    assert tokens.rows([fits]).equal(plain([fits]))
    assert tokens.count(f"{fits} asleep") == 9


def test_a_tokenizer_that_changes_sentences_by_their_syntax_is_refused() -> None:
    with pytest.raises(ConfigError, match="part of speech") as caught:
        Tokens(open_clip.SimpleTokenizer(reduction_mask="syntax"))
    assert "take out reduction_mask" in caught.value.fix


@pytest.mark.parametrize(
    ("clean", "alike"), [("lower", "A  Cat"), ("whitespace", " a\ncat "), ("canonicalize", "A_cat!")]
)
def test_sentences_that_are_one_to_the_model_have_equal_rows(
    tiny: Backbone,  # noqa: F811
    clean: str,
    alike: str,
) -> None:
    tokenizer = open_clip.SimpleTokenizer(context_length=32, clean=clean)
    backbone = Backbone(tiny._model, tiny.preprocess, tokenizer, CPU)
    rows = backbone.token_ids(["a cat", alike, "a cat?!"])
    assert (rows.dtype, rows.shape) == (np.int64, (3, 32))
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2]) == (clean == "canonicalize")
    assert backbone.token_ids([]).shape == (0, 32)
