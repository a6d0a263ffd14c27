"""Sentences to rows of tokens, by whichever tokenizer a model brings, and how many each of them takes."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import torch

from clipcifar.core.errors import ConfigError

_KEPT = 2**16  # sentences
_CLIPS_MARKS = 3  # a row of open_clip's mode "clips" begins, ends and is classified by marks set by hand


class Tokens:
    """A tokenizer of open_clip's: its own byte-pair one, or its wrapper around one of transformers.

    Attributes:
        context_length: the tokens of a row, marks and padding included.

    Raises:
        ConfigError: it changes sentences that would fit.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = copy.copy(tokenizer)  # Any: open_clip has no types
        self.context_length: int = tokenizer.context_length
        # Its other reductions leave whole what fits; this one would ask nltk's servers about every sentence.
        if "syntax" in getattr(getattr(tokenizer, "reduction_fn", None), "__name__", ""):
            raise ConfigError(
                "the tokenizer drops words by their part of speech, which is for training",
                where="open_clip_config.json: text_cfg.tokenizer_kwargs",
                fix="take out reduction_mask in a copy of your own",
            )
        if hasattr(tokenizer, "encode"):  # counting a sentence and making it a row both ask
            self._tokenizer.encode = lru_cache(_KEPT)(tokenizer.encode)

    def rows(self, sentences: list[str]) -> torch.Tensor:
        """(S, context) int64 token ids on the host: what the model reads."""
        ids: torch.Tensor = self._tokenizer(sentences)
        return ids.long()

    def count(self, sentence: str) -> int:
        """The number of tokens of a sentence before any cut, with every mark that its row must hold."""
        if hasattr(self._tokenizer, "encode"):
            return len(self._tokenizer.encode(sentence)) + 2
        cleaned, library = self._tokenizer.clean_fn(sentence), self._tokenizer.tokenizer
        if getattr(self._tokenizer, "tokenizer_mode", "") == "clips":
            return len(library(cleaned, add_special_tokens=False).input_ids) + _CLIPS_MARKS
        return len(library(cleaned).input_ids)
