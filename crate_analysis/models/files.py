"""What lies in model files: named tensors, and what is recorded with them; no code is run.

Read are safetensors, pickles of tensors (`torch.save`), and either cut into shards with an index
beside them, as the transformers library writes large models.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from crate_analysis.models.hub import DEFAULT_FILES, INDEX_ENDING
from crate_analysis.models.onnx_backbone import read_onnx
from crate_analysis.specs import FILE_ENDINGS

NESTED_UNDER = (
    "teacher",
    "student",
    "state_dict",
    "model",
    "model_state_dict",
    "model_ema",
    "state_dict_ema",
    "target_encoder",
    "encoder",
    "module",
    "net",
    "network",
    "params",
    "weights",
)
"""Keys of a training checkpoint that hold the weights, the preferred one first."""

OTHER_FORMATS = (
    (b"\x89HDF\r\n", "HDF5, as Keras writes"),
    (b"\x93NUMPY", "NumPy"),
    (b"GGUF", "GGUF"),
    (b"\x1f\x8b", "gzip"),
    (b"\x08", "ONNX"),
)
JSON_LIMIT = 64 << 20
"""Bytes; an index of shards or a config is much smaller."""


@dataclass(frozen=True)
class Stored:
    """What a file holds."""

    tensors: dict[str, Tensor]
    config: Mapping[str, Any] | None = None
    """The record of our own files, unchecked; None in files of others."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """What a training checkpoint keeps beside its weights: `arch`, `args`, ..."""


def find_in_folder(folder: Path) -> Path:
    """The model file in a folder: of the names that the hub's libraries use, or the only one.

    Raises IsADirectoryError where there is none, or more than one.
    """
    for name in DEFAULT_FILES:
        if (folder / name).is_file():
            return folder / name
    files = sorted(path for path in folder.iterdir() if path.name.endswith(FILE_ENDINGS))
    if len(files) == 1:
        return files[0]
    there = f", such as {files[0]}" if files else ""
    raise IsADirectoryError(
        f"{folder} is a folder without {DEFAULT_FILES[0]}; name a checkpoint file in it{there}"
    )


def files_of(path: Path) -> list[Path]:
    """All files that hold a model's weights: the file itself, or an index and its shards."""
    if not path.name.endswith(INDEX_ENDING):
        return [path]
    return [path, *(path.with_name(name) for name in shards_of(path))]


def shards_of(index: Path) -> list[str]:
    """The names of the shards that an index lists. Raises ValueError for a broken index."""
    content = read_json(index)
    listed = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise ValueError("holds no weight_map, so it is no index of shards; download it again")
    names = sorted({str(name) for name in listed.values()})
    outside = [name for name in names if Path(name).name != name or name in ("", "..")]
    if outside:
        raise ValueError(f"lists {outside[0]!r}, which is not a file beside it")
    return names


def read_json(path: Path) -> Any:
    """The content of a JSON file; ValueError for one that is too large, or none."""
    check_regular(path)
    if path.stat().st_size > JSON_LIMIT:
        raise ValueError(f"{path.name} is too large to be a config or an index")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} is not JSON: {str(error).splitlines()[0]}") from error


def read_file(path: Path) -> Stored:
    """The named tensors in a model file, out of their nesting, and what is recorded with them.

    Raises FileNotFoundError for a missing shard, and ValueError for a file that is truncated, of
    another format, holds code (which is not run), or something else than named tensors.
    """
    check_regular(path)
    if path.name.endswith(INDEX_ENDING):
        return _read_shards(path)
    if shard := re.fullmatch(r"(.+)-\d{5}-of-(\d{5})(\.\w+)", path.name):
        index = path.with_name(f"{shard[1]}{shard[3]}{INDEX_ENDING}")
        raise ValueError(f"is one of {int(shard[2])} shards; name their index, {index}")
    return _read_whole(path)


def _read_whole(path: Path) -> Stored:
    if path.suffix == ".onnx":
        return Stored(read_onnx(path))
    if path.suffix == ".safetensors" or _looks_like_safetensors(path):
        return _read_safetensors(path)
    return unwrap(_read_pickle(path))


def check_regular(path: Path) -> None:
    """Raise for what is no file: a pipe would be waited for without end."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise ValueError(f"{path.name} is {kind}, not a file; name a checkpoint file")


def _read_shards(index: Path) -> Stored:
    tensors: dict[str, Tensor] = {}
    for name in shards_of(index):
        shard = index.with_name(name)
        if not shard.is_file():
            raise FileNotFoundError(
                f"{index}: the shard {shard} is not there; download it beside the index"
            )
        try:
            check_regular(shard)
            tensors |= _read_whole(shard).tensors
        except ValueError as error:
            raise ValueError(f"shard {name}: {error}") from error
    return Stored(tensors)


def _looks_like_safetensors(path: Path) -> bool:
    """Whether a file of any name begins as safetensors do: a length, then JSON."""
    with path.open("rb") as file:
        start = file.read(10)
    return start[8:] in (b'{"', b"{}") and int.from_bytes(start[:8], "little") < 1 << 30


def _read_safetensors(path: Path) -> Stored:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, AttributeError, KeyError) as error:  # the last two: an unknown dtype
        raise ValueError(
            f"truncated or not a safetensors file ({error}); copy or download it again"
        ) from error
    if not tensors:
        raise ValueError("holds no weights; save a model's state_dict")
    if "config" not in metadata:
        return Stored(tensors, record=metadata)
    try:
        config = json.loads(metadata["config"])
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the config in its metadata is broken: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"the config in its metadata is broken: a {type(config).__name__}, not a record"
        )
    return Stored(tensors, config)


def _read_pickle(path: Path) -> Any:
    try:
        # A Namespace is a plain record: DINO's and timm's training files keep their options in one.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # remarks on formats, of which errors say enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
        if other := _other_format(path):
            raise ValueError(other) from error
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and (refused or _is_pickle(path)):
            what = refused[1] if refused else "objects that are not tensors"
            raise ValueError(
                f"holds executable code ({what}), which is never run here; if you trust its "
                "source, write its weights alone: "
                "torch.save(torch.load(FILE, weights_only=False)['state_dict'], NEW_FILE)"
            ) from error
        raise ValueError(
            "empty, truncated or not a PyTorch checkpoint; copy or download it again"
        ) from error


def _is_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO


def _other_format(path: Path) -> str:
    """What a file is that is no pickle of tensors, and what to do; nothing where that is open."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return (
                "is a TorchScript archive, which holds code; write its weights alone: "
                "torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
            )
        if any(
            name.endswith(("/archive_format", "serialized_exported_program.json")) for name in names
        ):
            return (
                "is an archive of torch.export, not named weights; write those alone: "
                "torch.save(torch.export.load(FILE).state_dict, NEW_FILE)"
            )
        if names and all(name.endswith(".npy") for name in names):
            return "is NumPy's npz, not a PyTorch checkpoint; take the PyTorch file of this model"
    with path.open("rb") as file:
        start = file.read(8)
    for magic, name in OTHER_FORMATS:
        if start.startswith(magic):
            return f"is {name}, not a PyTorch checkpoint; take the PyTorch file of this model"
    return ""


def unwrap(stored: Any) -> Stored:
    """The named tensors in what was pickled, out of their nesting."""
    record: dict[str, Any] = {}
    for _ in range(4):
        inner = _nested(stored)
        if inner is None:
            break
        record |= {key: value for key, value in stored.items() if isinstance(key, str)}
        stored = inner
    if not isinstance(stored, Mapping):
        raise ValueError(
            f"holds a {type(stored).__name__} in place of named weights; save a model's state_dict"
        )
    if not stored:
        raise ValueError("holds no weights; save a model's state_dict")
    for key, value in stored.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ValueError(
                f"{key!r} (of type {type(value).__name__}) is no named weight; "
                "save a model's state_dict"
            )
    return Stored(dict(stored), record=_plain(record))


def _nested(stored: Any) -> Mapping[Any, Any] | None:
    """The mapping in which a checkpoint keeps its weights, if it keeps them in one."""
    if not isinstance(stored, Mapping):
        return None
    for key in NESTED_UNDER:
        inner = stored.get(key)
        if isinstance(inner, Mapping) and (
            not inner or any(isinstance(value, Tensor | Mapping) for value in inner.values())
        ):
            return inner
    return None


def _plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself, options and all, without its tensors."""
    found: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, argparse.Namespace):
            value = vars(value)
        if isinstance(value, Mapping):
            found |= {k: v for k, v in value.items() if isinstance(v, bool | int | float | str)}
        elif isinstance(value, bool | int | float | str):
            found[key] = value
    return found


def fault_of(weight: Tensor) -> str:
    """Why a tensor cannot be a weight here, and what to do; nothing where it can.

    Asked before any number is looked at: an expanded tensor can stand for gigabytes.
    """
    if weight.is_meta:
        return "has no values (device meta); load its values before you save it"
    if weight.is_nested:
        return "is a nested tensor; save each of its parts"
    if weight.is_quantized:
        return f"is quantized ({weight.dtype}); save w.dequantize()"
    if weight.layout != torch.strided:
        return f"is sparse ({str(weight.layout).removeprefix('torch.')}); save w.to_dense()"
    if weight.is_complex():
        return f"holds {weight.dtype}, and a weight here is real; save w.real, if that is meant"
    if not weight.is_floating_point():
        return f"holds {weight.dtype}, not floating-point weights"
    if weight.dtype.itemsize < 2:
        return f"holds {weight.dtype}, whose scale is not in it; save it in float16 or wider"
    stored, needed = weight.untyped_storage().nbytes(), weight.numel() * weight.element_size()
    if stored < needed:
        return f"stands for {needed:,} bytes and holds {stored:,} (expanded); save w.contiguous()"
    return ""


def in_single_precision(key: str, weight: Tensor) -> Tensor:
    """A weight as float32, a copy. Raises ValueError for NaN, infinity or too large a number."""
    single = weight.detach().to(torch.float32, copy=True).contiguous()
    if not single.isfinite().all():
        if weight.isfinite().all():
            raise ValueError(f"{key} holds numbers in {weight.dtype} that float32 cannot hold")
        raise ValueError(
            f"{key} holds NaN or infinity in {weight.dtype}; take an earlier or a wider one"
        )
    return single
