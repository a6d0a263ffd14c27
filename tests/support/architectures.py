"""open_clip's architectures in kinds, and a small random model of each kind with a tokenizer of its own.

Nothing is downloaded: tokenizers of the hub's kinds are made here, with the ids that the real ones give to
padding and to the end of a sentence. Those need transformers and sentencepiece.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
from open_clip.transform import PreprocessCfg

from clipcifar.store.model import CONFIG_FILE, WEIGHTS_FILE

WIDTH = 32
HAS_TRANSFORMERS = all(importlib.util.find_spec(name) for name in ("transformers", "sentencepiece"))
_SIZES = {"width", "heads", "layers", "vocab_size", "context_length", "mlp_ratio"}
_IMAGE_SIZES = {"image_size", "patch_size", "head_width", "attn_pooler_queries", "attn_pooler_heads"}
_SMALL_TEXT = {"width": WIDTH, "heads": 2, "layers": 2}
_SMALL_VISION = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
# By the name of the repository: first the longer names.
_TOKENIZERS = {
    "xlm": "xlm-roberta",
    "roberta": "roberta",
    "bert": "bert",
    "mt5": "t5",
    "nllb": "nllb",
    "SigLIP2": "gemma",
    "SigLIP": "siglip",
}
_PHRASE = "a an the cat dog eel photo of small very in dark water seen from above on red and blue carpet"
_WORDS = _PHRASE.split()
_TEXT = [
    " ".join(_WORDS[i:] + _WORDS[:i]) + end for i in range(len(_WORDS)) for end in ("", ".", "!", ", CAT")
]


def _kind_of_tokenizer(text: dict[str, Any]) -> str:
    name = text.get("hf_tokenizer_name") or ""
    return next((kind for part, kind in _TOKENIZERS.items() if part in name), "open_clip's")


def kind_of_text_tower(config: dict[str, Any]) -> str:
    """All that a config says about its text tower besides sizes, with the repositories' names by kind."""
    text = {key: value for key, value in config["text_cfg"].items() if key not in _SIZES}
    text["tokenizer"] = _kind_of_tokenizer(text)
    text["tower"] = text["tokenizer"] if text.pop("hf_model_name", None) else "open_clip's"
    text.pop("hf_tokenizer_name", None)
    own = config.get("custom_text") or text["tower"] != "open_clip's"
    text["class"] = "CoCa" if "multimodal_cfg" in config else "CustomTextCLIP" if own else "CLIP"
    return json.dumps(text, sort_keys=True)


def kind_of_image_tower(config: dict[str, Any]) -> str:
    """All that a config says about its image tower besides sizes; of timm's names, the words for a family."""
    vision = {key: value for key, value in config["vision_cfg"].items() if key not in _SIZES | _IMAGE_SIZES}
    name = vision.get("timm_model_name", "")
    marks = [mark for mark in ("siglip", "clip", "mci", "pe_core", "gap", "relpos") if mark in name]
    own = "ModifiedResNet" if isinstance(config["vision_cfg"].get("layers"), list) else "VisionTransformer"
    vision["timm_model_name"] = " ".join([name.split("_")[0] or own, *marks[:1]])
    if own == "VisionTransformer":  # the other ones have their own activation
        vision["quick_gelu"] = config.get("quick_gelu", False)
    return json.dumps(vision, sort_keys=True)


def by_kind(kind_of: Any) -> dict[str, list[str]]:
    """Every architecture of this open_clip by its kind."""
    kinds: dict[str, list[str]] = {}
    for name in open_clip.list_models():
        kinds.setdefault(kind_of(open_clip.get_model_config(name)), []).append(name)
    return kinds


def is_cut(config: dict[str, Any]) -> bool:
    """Whether the text tower is causal and reads the end of the sentence, as its config says."""
    text = config["text_cfg"]
    ends = text.get("pool_type", "argmax") in ("argmax", "eos")
    return ends and not (text.get("no_causal_mask") or text.get("embed_cls") or text.get("hf_model_name"))


def write_small(architecture: str, folder: Path) -> dict[str, Any]:
    """A folder in open_clip's format with a small random model, its text tower of the architecture's kind.

    Returns:
        Its config of the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = copy.deepcopy(open_clip.get_model_config(architecture))
    text = config["text_cfg"]
    config.update(embed_dim=WIDTH, vision_cfg=dict(_SMALL_VISION))
    config["vision_cfg"]["output_tokens"] = "multimodal_cfg" in config
    if "multimodal_cfg" in config:
        config["vision_cfg"].update(attentional_pool=True, attn_pooler_heads=2, attn_pooler_queries=4)
        config["multimodal_cfg"].update(_SMALL_TEXT)
    kind = _kind_of_tokenizer(text)
    if kind != "open_clip's":
        words = write_tokenizer(kind, folder)
        text["vocab_size"] = words
        if "hf_model_name" in text:
            text["hf_model_name"] = str(_write_text_config(kind, words, folder / "tower"))
    if "hf_model_name" not in text:
        text.update(_SMALL_TEXT)
    write_model({"model_cfg": config, "preprocess_cfg": {}}, folder)
    return config


def write_small_clip(folder: Path, **text: Any) -> None:
    """A small random CLIP whose text config says `text` besides its sizes."""
    vision = dict(_SMALL_VISION)
    model = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": {**_SMALL_TEXT, **text}}
    write_model({"model_cfg": model, "preprocess_cfg": {}}, folder)


def write_shallow(architecture: str, folder: Path) -> None:
    """The same with its own image tower, of one block or stage's worth each, and a small text tower.

    For a tower of timm's, `shallow` has to stand in for `timm.create_model`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = copy.deepcopy(open_clip.get_model_config(architecture))
    layers = config["vision_cfg"].get("layers")
    if layers is not None:
        config["vision_cfg"]["layers"] = [1] * 4 if isinstance(layers, list) else 1
    preprocess = {}
    for tag in open_clip.list_pretrained_tags_by_model(architecture)[:1]:
        known = PreprocessCfg.__dataclass_fields__
        said = open_clip.get_pretrained_cfg(architecture, tag).items()
        preprocess = {key: value for key, value in said if key in known}
    small = {key: config[key] for key in ("embed_dim", "vision_cfg", "quick_gelu") if key in config}
    text = {**_SMALL_TEXT, "context_length": 8}
    if "multimodal_cfg" in config:
        small |= {"multimodal_cfg": {**_SMALL_TEXT, "context_length": 8}, "custom_text": True}
        text["output_tokens"] = True
    write_model({"model_cfg": {**small, "text_cfg": text}, "preprocess_cfg": preprocess}, folder)


def shallow(create: Callable[..., Any]) -> Callable[..., Any]:
    """timm's `create_model` with one block to a stage."""

    def created(name: str, **kwargs: Any) -> Any:
        if name.startswith("convnext"):
            kwargs |= {"depths": (1,) * 4, "dims": (32, 64, 96, 128)}
        elif name.startswith("swin"):
            kwargs |= {"depths": (1,) * 4}
        elif name.startswith("fastvit"):
            kwargs |= {"layers": (1,) * 4}
        else:
            kwargs |= {"depth": 1}
        return create(name, **kwargs)

    return created


def write_model(config: dict[str, Any], folder: Path) -> None:
    """Config and weights, drawn so widely that sentences differ and positions matter."""
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    torch.manual_seed(7)
    model = open_clip.create_model(f"local-dir:{folder}", pretrained_text=False, load_weights=False)
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            embedding = "embed" in name or "shared" in name
            torch.nn.init.normal_(parameter, std=1 if embedding else parameter.shape[-1] ** -0.5)
        elif name.endswith("gamma"):  # beginning near zero, it would leave nothing of what an image has
            torch.nn.init.ones_(parameter)
    state = {name: tensor.detach().clone().contiguous() for name, tensor in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / WEIGHTS_FILE)


def write_tokenizer(kind: str, folder: Path) -> int:
    """A tokenizer of one of the hub's kinds; returns the size of its vocabulary."""
    from transformers import AutoTokenizer

    said: dict[str, Any] = {"model_max_length": 512}
    if kind == "bert":
        marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        letters = [f"{begin}{c}" for c in "abcdefghijklmnopqrstuvwxyz.,!" for begin in ("", "##")]
        (folder / "vocab.txt").write_text("\n".join([*marks, *letters, *_WORDS]))
        said |= {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    elif kind == "roberta":
        _write_byte_pairs(folder)
        said |= {"tokenizer_class": "RobertaTokenizer"}
    else:
        _write_pieces(kind, folder)
        said |= {
            "t5": {"tokenizer_class": "T5Tokenizer", "extra_ids": 0},
            "siglip": {"tokenizer_class": "T5Tokenizer", "extra_ids": 0, "pad_token": "</s>"},
            "gemma": {"tokenizer_class": "GemmaTokenizer", "add_bos_token": False, "add_eos_token": True}
            | {"padding_side": "right"},
            "xlm-roberta": {"tokenizer_class": "XLMRobertaTokenizer"},
            "nllb": {"tokenizer_class": "NllbTokenizer", "src_lang": "eng_Latn"}
            | {"additional_special_tokens": ["eng_Latn", "fra_Latn"]},
        }[kind]
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return max(AutoTokenizer.from_pretrained(folder).get_vocab().values()) + 1


def write_word_tokenizer(folder: Path, marks: tuple[str, ...], *, stored: int = 0, **said: Any) -> int:
    """One of transformers' generic kind: a token for each word, `marks` numbered above them in that order.

    Args:
        folder: where it goes.
        marks: among them <pad>, <bos>, <eos>, <cls> and <unk>.
        stored: tokens to which the file itself would have rows cut and padded; 0 for no such thing.
        said: what its config says besides.

    Returns:
        The size of its vocabulary.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate((*_WORDS, *marks))}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(mark, vocabulary[mark]) for mark in ("<bos>", "<eos>")]
    made.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    if stored:
        made.enable_truncation(stored)
        made.enable_padding(length=stored)
    made.save(str(folder / "tokenizer.json"))
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "bos", "eos", "cls", "unk")}
    said = {"tokenizer_class": "PreTrainedTokenizerFast", **names, **said}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return len(vocabulary)


def _write_byte_pairs(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made.train_from_iterator(_TEXT, vocab_size=400, special_tokens=marks, show_progress=False)
    made.save_model(str(folder))


def _write_pieces(kind: str, folder: Path) -> None:
    import sentencepiece

    # Padding, end, unknown and beginning, as the real ones have them; XLM-R's class renumbers its own.
    ids = {"gemma": (0, 1, 3, 2), "t5": (0, 1, 2, -1), "siglip": (0, 1, 2, -1)}.get(kind, (-1, 2, 0, 1))
    name = {"gemma": "tokenizer", "t5": "spiece", "siglip": "spiece"}.get(kind, "sentencepiece.bpe")
    (folder / "text.txt").write_text("\n".join(_TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input=os.fspath(folder / "text.txt"),
        model_prefix=os.fspath(folder / name),
        model_type="bpe" if kind == "gemma" else "unigram",
        vocab_size=330 if kind == "gemma" else 90,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=kind == "gemma",
        **dict(zip(("pad_id", "eos_id", "unk_id", "bos_id"), ids, strict=True)),
        pad_piece="<pad>",
        eos_piece="<eos>" if kind == "gemma" else "</s>",
        bos_piece="<bos>" if kind == "gemma" else "<s>",
        minloglevel=2,
    )
    (folder / f"{name}.vocab").unlink()
    (folder / "text.txt").unlink()


def _write_text_config(kind: str, words: int, folder: Path) -> Path:
    """The config of a text tower of transformers' own, small."""
    config: dict[str, Any] = {"vocab_size": words}
    if kind in ("roberta", "xlm-roberta", "bert"):
        config |= {"model_type": kind, "hidden_size": WIDTH, "num_hidden_layers": 2, "pad_token_id": 1}
        config |= {"num_attention_heads": 2, "intermediate_size": 64, "max_position_embeddings": 130}
    elif kind == "t5":
        config |= {"model_type": "mt5", "d_model": WIDTH, "d_kv": 16, "d_ff": 64, "num_layers": 2}
        config |= {"num_heads": 2, "is_encoder_decoder": True, "pad_token_id": 0}
    else:
        config |= {"model_type": "m2m_100", "d_model": WIDTH, "encoder_layers": 2, "decoder_layers": 1}
        config |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64}
        config |= {"decoder_ffn_dim": 64, "pad_token_id": 1, "max_position_embeddings": 130}
        config |= {"is_encoder_decoder": True}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return folder
