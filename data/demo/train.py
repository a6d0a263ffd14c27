"""Train the stand-in CLIP that the demo and the tests run the whole pipeline on.

The model is a CLIP in miniature (`clip/open_clip_config.json`), trained from scratch with CLIP's
contrastive loss on the 700 scans that `clipcifar.datasets.array_sets.load_digits` leaves out, so that none of
the images that the pipeline sees was seen here. An image is shifted a little and altered in one of
six ways. A caption is true of its image: it names the digit or, one time in four, a digit that the
image does not show ("a scan of anything but three"), and may say how the image was altered. Every
other caption of the batch that is true of the image counts as right too, where CLIP assumes one.

The denials are what makes the wording of a prompt matter: to tell the two kinds apart, the text
tower has to read more than the name. Never in a caption: the word "photo", a name on its own, and
all but one adjective of the CIFAR templates. How prompt sets made of these score is for the
model to decide.

The numbers that come of it say that the machinery works and nothing about CLIP. Run it from the
root of the repository; on one machine, the same library versions write the same bytes.

    PYTHONPATH=. python data/demo/train.py              # train, write data/demo/clip
    PYTHONPATH=. python data/demo/train.py --evaluate   # score what data/demo/clip holds
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from tqdm import trange

from clipcifar.datasets.array_sets import DIGIT_NAMES, load_digits, reserved_digits

FOLDER = Path(__file__).parent / "clip"
SEED, STEPS, BATCH, WARMUP, PEAK_RATE, WEIGHT_DECAY = 0, 1800, 256, 100, 5e-3, 0.1
MAX_SHIFT = 3  # pixels, of 32; a cell of the 8 x 8 scan is 4 pixels wide
MAX_LOGIT_SCALE = 100.0  # as in CLIP

CONTEXT_LENGTH, VOCABULARY = 32, 49408  # CLIP's vocabulary; the context is cut short
MEAN, STD = 0.3, 0.38  # of the reserved scans, rounded
MODEL: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 32},
    "text_cfg": {
        "context_length": CONTEXT_LENGTH,
        "vocab_size": VOCABULARY,
        "width": 32,
        "heads": 2,
        "layers": 2,
    },
}
PREPROCESS = {
    "mean": [MEAN] * 3,
    "std": [STD] * 3,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}

# What may be done to images (N, 1, 32, 32) in [0, 1], under the word that a caption uses for it.
CONDITIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "clear": lambda x: x,
    "blurry": lambda x: F.avg_pool2d(x, 9, stride=1, padding=4),
    "dark": lambda x: 0.4 * x,
    "noisy": lambda x: (x + 0.25 * torch.randn_like(x)).clamp(0, 1),
    "negative": lambda x: 1 - x,
    "bold": lambda x: F.max_pool2d(x, 5, stride=1, padding=2),
}
UNSAID = len(CONDITIONS)  # the condition of a caption that names none
MEDIA = ("scan", "image")
ASSERTIONS = ("the handwritten digit {}", "the digit {}", "the number {}")
DENIALS = ("a digit that is not {}", "a number other than {}", "anything but {}")
DENIED = 0.25  # the share of captions that name a digit which the image does not show

PROMPT_SETS = {
    "photo": ["a photo of a {}."],
    "digits": ["a scan of the handwritten digit {}."],
    "bare": ["{}"],
    "cifar": [
        f"a {look}photo of {article}{size}{{}}."
        for article in ("a ", "the ")
        for look, size in [
            *((look, "") for look in ("", "blurry ", "black and white ", "low contrast ")),
            *((look, "") for look in ("high contrast ", "bad ", "good ")),
            ("", "small "),
            ("", "big "),
        ]
    ],
    "ensemble": [
        "a scan of the handwritten digit {}.",
        "a clear image of the number {}.",
        "a picture of the digit {}.",
        "a photo of the number {}.",
        "a drawing of a {}.",
        "the digit {}, written by hand.",
        "someone wrote {}.",
        "{}",
    ],
}


def caption_tokens() -> Tensor:
    """Every caption: tokens (2: denied, asserted; 10 digits; 7 conditions; W wordings; context)."""
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    captions = []
    for phrases in (DENIALS, ASSERTIONS):
        for digit, name in enumerate(DIGIT_NAMES):
            for adjective in [*CONDITIONS, ""]:
                for medium in MEDIA:
                    start = f"{adjective} {medium}".strip()
                    start = f"{'an' if start[0] in 'aeiou' else 'a'} {start} of "
                    for phrase in phrases:
                        captions += [f"{start}{phrase.format(word)}." for word in (name, digit)]
    tokens = tokenizer(captions)
    return tokens.view(2, len(DIGIT_NAMES), UNSAID + 1, -1, tokens.shape[-1])


def shifted(images: Tensor) -> Tensor:
    """Images (N, 1, 32, 32), each moved by up to `MAX_SHIFT` pixels over a black border."""
    size = images.shape[-1]
    padded = F.pad(images, [MAX_SHIFT] * 4)
    starts = torch.randint(2 * MAX_SHIFT + 1, (len(images), 2)).tolist()
    return torch.stack(
        [image[:, y : y + size, x : x + size] for image, (y, x) in zip(padded, starts, strict=True)]
    )


def altered(images: Tensor, condition: Tensor) -> Tensor:
    """Images (N, 1, 32, 32) after what `condition` (N,) says, as the model takes them."""
    for index, alter in enumerate(CONDITIONS.values()):
        chosen = condition == index
        images[chosen] = alter(images[chosen])
    return ((images - MEAN) / STD).expand(-1, 3, -1, -1)


def random_batch(gray: Tensor, digits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Altered images, one true caption for each, and which captions are true of which images.

    Returns:
        images (N, 3, 32, 32), captions (N, context), is_true (N images, N captions) bool.
    """
    rows = torch.randint(len(gray), (BATCH,))
    digit, condition = digits[rows], torch.randint(len(CONDITIONS), (BATCH,))
    said = torch.where(torch.rand(BATCH) < 0.5, condition, UNSAID)
    asserted = (torch.rand(BATCH) >= DENIED).long()
    other = (digit + torch.randint(1, len(DIGIT_NAMES), (BATCH,))) % len(DIGIT_NAMES)
    named = torch.where(asserted == 1, digit, other)
    wording = torch.randint(tokens.shape[3], (BATCH,))

    right_digit = (digit[:, None] == named) == asserted
    right_condition = (condition[:, None] == said) | (said == UNSAID)
    images = altered(shifted(gray[rows]), condition)
    return images, tokens[asserted, named, said, wording], right_digit & right_condition


def contrastive_loss(logits: Tensor, is_true: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, the target shared by all true captions or images.

    Args:
        logits: (N images, N captions), scaled cosines.
        is_true: (N images, N captions) bool; every row and column has a true entry.
    """
    by_image = F.cross_entropy(logits, F.normalize(is_true.float(), p=1, dim=1))
    by_caption = F.cross_entropy(logits.T, F.normalize(is_true.T.float(), p=1, dim=1))
    return (by_image + by_caption) / 2


def train(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> open_clip.CLIP:
    """A CLIP trained on images (N, 32, 32, 3) of digits with labels (N,)."""
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the order of summation, and so every bit, depends on it
    gray = torch.from_numpy(images[..., :1]).permute(0, 3, 1, 2) / 255
    digits, tokens = torch.from_numpy(labels), caption_tokens()

    model = open_clip.CLIP(**MODEL)
    used = torch.zeros(VOCABULARY, 1)
    used[tokens.unique()] = 1
    model.token_embedding.weight.data *= used  # a row never trained is zero, which compresses
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / WARMUP) * (1 + math.cos(math.pi * step / STEPS)) / 2,
    )
    for _ in trange(STEPS, desc="train", unit="step"):
        inputs, captions, is_true = random_batch(gray, digits, tokens)
        image_embeddings, text_embeddings, scale = model(inputs, captions)
        loss = contrastive_loss(scale * image_embeddings @ text_embeddings.T, is_true)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
    return model.eval()


@torch.no_grad()
def zero_shot_accuracy(
    model: open_clip.CLIP, embeddings: Tensor, labels: NDArray[np.int64], templates: list[str]
) -> float:
    """Accuracy of the class embeddings from `templates` on unit image embeddings (N, 32)."""
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    sentences = [template.format(name) for name in DIGIT_NAMES for template in templates]
    texts = model.encode_text(tokenizer(sentences), normalize=True)
    weights = F.normalize(texts.view(len(DIGIT_NAMES), len(templates), -1).mean(1), dim=-1)
    return float(np.mean((embeddings @ weights.T).argmax(1).numpy() == labels))


@torch.no_grad()
def evaluate() -> None:
    """Print what the stored model scores on the test digits, which no training has seen."""
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{FOLDER}")
    model.eval()
    data = load_digits()
    train_embeddings, test_embeddings = (
        model.encode_image(
            torch.stack([preprocess(Image.fromarray(image)) for image in part.images]),
            normalize=True,
        )
        for part in (data.train, data.test)
    )
    for name, templates in PROMPT_SETS.items():
        accuracy = zero_shot_accuracy(model, test_embeddings, data.test.labels, templates)
        print(f"zero-shot, {name:10} {accuracy:.4f}")
    probe = LogisticRegression(max_iter=5000).fit(train_embeddings, data.train.labels)
    print(f"linear probe, C = 1   {probe.score(test_embeddings, data.test.labels):.4f}")


def main() -> None:
    """Train and write the model, or score the one that is there."""
    parser = argparse.ArgumentParser(description="Train the stand-in CLIP under data/demo/clip.")
    parser.add_argument("--evaluate", action="store_true", help="score the stored model instead")
    if parser.parse_args().evaluate:
        return evaluate()

    model = train(*reserved_digits())
    FOLDER.mkdir(exist_ok=True)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (FOLDER / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = FOLDER / "open_clip_model.safetensors"
    save_file({name: value.half() for name, value in model.state_dict().items()}, weights)
    print(f"wrote {weights} ({weights.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
