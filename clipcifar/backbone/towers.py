"""The frozen CLIP: load it, encode images, encode sentences.

The weights come from a folder in open_clip's own format, which `clipcifar.weights.resolve` has
filled; nothing here asks a network.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from open_clip.transformer import VisionTransformer

from clipcifar.backbone import blocks, kernels
from clipcifar.backbone.device import (
    autocast,
    dtype_of,
    is_out_of_memory,
    keep_fp32_whole,
    keep_freed_memory,
    upload,
)
from clipcifar.backbone.params import Precision
from clipcifar.backbone.preprocess import Preprocess, model_input
from clipcifar.backbone.text_tower import Beginnings, TextTower, filled, in_batches
from clipcifar.backbone.tokens import Tokens
from clipcifar.core.errors import ConfigError, DataError, EnvironmentFault
from clipcifar.core.processes import give_back_freed_memory


def load_model(folder: Path, device: torch.device, *, key: str) -> tuple[Any, Preprocess]:
    """open_clip's model from a folder in its format, and what its checkpoint says about input images.

    Args:
        key: the setting that the device was chosen by, for messages.

    Raises:
        ConfigError: the model needs a package that is not there.
        DataError: the weights are damaged or do not fit the architecture.
        EnvironmentFault: there is not enough memory for it.
    """
    keep_fp32_whole(device)
    with _explained(folder, key=key), kernels.Undrawn():  # loads strictly: what the file lacks is an error
        model = open_clip.create_model(f"local-dir:{folder}", device=device, require_pretrained=True)
    return model, Preprocess.from_config(open_clip.get_model_preprocess_cfg(model))


@contextmanager
def _explained(folder: Path, *, key: str) -> Iterator[None]:
    """Let what goes wrong in open_clip, torch and safetensors be said in words."""
    try:
        yield
    except ImportError as error:
        raise ConfigError(
            f"this model's tokenizer or text tower needs another package: {error}",
            where=str(folder),
            fix="pip install transformers sentencepiece",
        ) from error
    except Exception as error:  # they raise many types
        if is_out_of_memory(error):
            raise EnvironmentFault(
                "out of memory while the model was loaded",
                where=str(folder),
                fix=f"free some memory, choose another {key}, or a smaller model",
            ) from error
        raise DataError(
            f"the weights cannot be loaded: {error}", where=str(folder), fix="run `dvc repro -f fetch_model`"
        ) from error


class Backbone:
    """A frozen CLIP in evaluation mode.

    Attributes:
        preprocess: what the checkpoint says about its input images.
        context_length: the most tokens a sentence may have, start and end tokens included.
        logit_scale: the learned factor on cosine similarities, a plain number.
        precision: what the towers compute in, save the text tower on cuda, which stays in fp32.
    """

    def __init__(
        self,
        model: Any,
        preprocess: Preprocess,
        tokenizer: Any,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        self._model = model.eval().requires_grad_(False)  # Any: open_clip has no types
        self.logit_scale = float(model.logit_scale.exp())
        self.precision = precision
        # Cast once: autocast does it in every call, which costs a CPU what it brings, and has a card write
        # every normalisation twice. Other towers there may hold what fp16 cannot: a variance above 65,504.
        on_card = device.type == "cuda"
        self._mixed = on_card and not isinstance(model.visual, VisionTransformer)
        self._dtype = torch.float32 if self._mixed else dtype_of(device, precision)
        (model.visual if on_card else model).to(self._dtype)
        kernels.replace_attention(model)
        blocks.take_class_token(model)
        keep_freed_memory(device)
        self._tokens = Tokens(tokenizer)
        self._text = TextTower(model, self._tokens.context_length)
        self._beginnings: Beginnings | None = None  # of the last sentences: the next may begin so, too
        self.device = device
        self.preprocess = preprocess
        self.context_length = self._tokens.context_length

    @classmethod
    def load(cls, folder: Path, device: torch.device, precision: Precision = "fp32") -> Backbone:
        """Load from a folder in open_clip's format; errors as of `load_model` and `device.dtype_of`."""
        dtype_of(device, precision)
        model, preprocess = load_model(folder, device, key="embed.device")
        with _explained(folder, key="embed.device"):
            tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
        return cls(model, preprocess, tokenizer, device, precision)

    def forget_images(self) -> None:
        """Let the image tower go, where only sentences are asked for: more than half of the weights."""
        if self._model.visual is None:
            return  # looking for garbage takes longer than ten sentences
        self._model.visual = None
        gc.collect()  # attention of ours refers to its module, and that to it
        give_back_freed_memory()

    @torch.inference_mode()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images.

        Args:
            images: (B, 3, H, W) uint8 on the host, any size.

        Returns:
            (B, D) float32 unit rows in any precision, on the device and perhaps still being computed.
        """
        pixels = model_input(upload(images, self.device), self.preprocess).to(self._dtype)
        mixed = autocast(self.device, self.precision if self._mixed else "fp32")
        with mixed, kernels.fast_on_cpu(self.device):
            features = self._model.encode_image(pixels)
        return F.normalize(features.float(), dim=-1)

    def count_tokens(self, sentence: str) -> int:
        """The number of tokens of a sentence before any cut, start and end tokens included."""
        return self._tokens.count(sentence)

    def token_ids(self, sentences: list[str]) -> NDArray[np.int64]:
        """(S, context) token ids; two sentences with equal rows are one and the same to the model.

        Args:
            sentences: S sentences, none over the context length (see `check_length`).
        """
        return self._tokens.rows(sentences).numpy() if sentences else np.zeros((0, self.context_length), int)

    def encode_sentences(self, sentences: list[str]) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """Embed sentences, each alike whatever its neighbours.

        Batches hold rows of one length, cut where the model cannot tell (see `TextTower`), and always
        `TEXT_ROWS` of them (short batches are padded by repetition); their first tokens are embedded
        once for all that begin alike. So every matrix product has a shape that depends on the sentence
        alone, and with it every bit of the result.

        Args:
            sentences: S sentences, none over the context length (see `check_length`).

        Yields:
            Batch by batch, the positions of its sentences and their (rows, D) float32 unit rows.
        """
        if not sentences:
            return
        tokens = self._tokens.rows(sentences)
        lengths = self._text.lengths(tokens)
        first = [
            tuple(row[: self._text.earlier(length)].tolist())
            for row, length in zip(tokens, lengths, strict=True)
        ]
        order = sorted(range(len(sentences)), key=lambda i: (lengths[i], first[i], sentences[i]))
        if (beginnings := self._beginnings) is None or not beginnings.knows(first):
            beginnings = self._beginnings = Beginnings(self._text, (first[i] for i in order), self.device)
        for rows in in_batches(order, key=lambda i: lengths[i]):
            padded, length = filled(rows), lengths[rows[0]]
            with kernels.fast_on_cpu(self.device):
                begun = beginnings.of([first[i] for i in padded])
                features = self._text.encode(tokens[padded, :length].to(self.device), begun)
            yield rows, F.normalize(features.float(), dim=-1)[: len(rows)].cpu().numpy()

    def check_length(self, sentence: str, *, where: str) -> None:
        """Raise ConfigError when a sentence does not fit the context.

        CLIP's tokenizers cut over-long text without a word; here nothing is ever cut.
        """
        count = self.count_tokens(sentence)
        if count > self.context_length:
            raise ConfigError(
                f"{sentence!r} has {count} tokens, the model reads {self.context_length}",
                where=where,
                fix="shorten the sentence",
            )
