"""What lies where weights are looked for, told by its first bytes: names are not to be trusted.

Whatever cannot be read as tensors is refused here with the way to make it readable.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal, NoReturn

from clipcifar.core.errors import ConfigError, DataError
from clipcifar.core.files import explained, fault_behind
from clipcifar.store.model import CONFIG_FILE, LOCAL_DIR

Kind = Literal["safetensors", "pickle", "npz"]
PICKLES = ("*.bin", "*.pt", "*.pth")  # what open_clip and others call a pickle of tensors
_HEAD = 512  # bytes
_AGAIN = "fetch the file again"
_EXPECTED = (
    "give a safetensors file, or a PyTorch one of a state dict (`torch.save(model.state_dict(), …)`) with "
    "model.allow_pickle: true"
)
# First bytes, what that is, and how to have weights instead.
_OTHERS = (
    (
        b"version https://git-lfs",
        "a Git-LFS pointer, not the weights themselves",
        "run `git lfs pull` where it is from",
    ),
    (b"<", "a page of the web, not weights", f"{_AGAIN}: its address may want a login, or a direct link"),
    (b"{", "JSON, not weights", f"{_AGAIN}; an index of shards names files that must first be joined to one"),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it"),
    (b"GGUF", "a GGUF file", _EXPECTED),
    (b"\x93NUMPY", "a single numpy array", _EXPECTED),
    (b"\x89HDF", "an HDF5 file, as of Keras", _EXPECTED),
)
_ONNX = "use the PyTorch checkpoint that it was exported from: its graph has other names and may be rewritten"
# Commands name no file but their own, since names of files may hold anything.
_TORCHSCRIPT = (
    'if you trust it, since loading runs what it holds, turn it into w.safetensors: python -c "import sys, '
    "torch, safetensors.torch as s; m = torch.jit.load(sys.argv[1], map_location='cpu'); "
    "s.save_file({k: v.clone().contiguous() for k, v in m.state_dict().items()}, 'w.safetensors')\" <file>; "
    "OpenAI's own weights need no file: model.pretrained: openai"
)
_DISTRIBUTED = (
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch <folder> w.pt, then model.path: w.pt "
    "and model.allow_pickle: true"
)
_DEEPSPEED = "python -m deepspeed.utils.zero_to_fp32 <folder> out, and use the file in out"
_SHARDS = (
    'join them: python -c "import sys, safetensors.torch as s; s.save_file({k: v for f in sys.argv[1:] '
    "for k, v in s.load_file(f).items()}, 'w.safetensors')\" <folder>/*.safetensors"
)
# What a folder holds, what that is, and how to make one file of it.
_FOLDERS = (
    (CONFIG_FILE, "a folder in open_clip's format", f"set model.name: {LOCAL_DIR}<folder>"),
    ("*.distcp", "a distributed (FSDP) checkpoint", _DISTRIBUTED),
    ("zero_to_fp32.py", "a DeepSpeed checkpoint", _DEEPSPEED),
    ("**/*zero_pp_rank_*", "a DeepSpeed checkpoint", _DEEPSPEED),
    ("**/mp_rank_*", "a DeepSpeed checkpoint", "set model.path to its file mp_rank_00_model_states.pt"),
    ("*.index.json", "a checkpoint in several shards", _SHARDS),
    ("config.json", "a folder of transformers", "set model.path to the weights file in it"),
)


def kind_of(path: Path) -> Kind:
    """How the tensors of a file can be read.

    Raises:
        DataError: they cannot; says what it is instead.
    """
    with explained(path), open(path, "rb") as stream:
        head = stream.read(_HEAD)
    if not head:
        _refuse(path, "an empty file", _AGAIN)
    if path.suffix == ".onnx":
        _refuse(path, "an ONNX file: a graph, not a checkpoint", _ONNX)
    if head[4:9] == b"\0\0\0\0{":  # the length of a header, and the header
        return "safetensors"
    if head.startswith(b"PK"):
        return _kind_of_zip(path)
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return "pickle"
    for start, what, fix in _OTHERS:
        if head.lstrip().startswith(start):
            _refuse(path, what, fix)
    if head[:1] == b"\x08" and (b"onnx" in head or b"pytorch" in head):
        _refuse(path, "an ONNX file: a graph, not a checkpoint", _ONNX)
    if head[257:262] == b"ustar":
        _refuse(path, "a tar archive", "unpack it")
    if path.suffix == ".safetensors":  # its own check says what is wrong with it
        return "safetensors"
    _refuse(path, f"no file of weights that is known here (it begins with {head[:8]!r})", _EXPECTED)


def _kind_of_zip(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise fault_behind(error, path) or DataError(
            f"{path.name} is a PyTorch file or other zip archive that breaks off: {error}",
            where=str(path),
            fix=_AGAIN,
        ) from error
    if any(name.endswith("/constants.pkl") for name in names):
        _refuse(path, "a TorchScript archive: a program with its weights", _TORCHSCRIPT)
    if any(name.endswith("data.pkl") for name in names):
        return "pickle"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    _refuse(path, "a zip archive of other files", "unpack it")


def _refuse(path: Path, what: str, fix: str) -> NoReturn:
    raise DataError(f"{path.name} is {what}", where=str(path), fix=fix)


def refuse_folder(path: Path, *, where: str, what: str, fix: str) -> NoReturn:
    """Raise ConfigError for a folder that is no model of open_clip's, or for nothing at all.

    Args:
        where: the key that names it.
        what, fix: what is wrong, and what to do where it is no folder of a kind that is known here.
    """
    for pattern, kind, way in _FOLDERS if path.is_dir() else ():
        if next(path.glob(pattern), None):
            raise ConfigError(f"{what}; it is {kind}", where=where, fix=way)
    raise ConfigError(what, where=where, fix=fix)
