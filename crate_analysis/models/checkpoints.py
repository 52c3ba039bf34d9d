"""Model files: the released layouts, read exactly or not at all, and our own, written.

Layouts: CRATE (Yu et al. 2023, 2024), DINO (Caron et al. 2021, arXiv 2104.14294) and timm's Vision
Transformer.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from crate_analysis.models import hub
from crate_analysis.models.config import ModelConfig
from crate_analysis.models.registry import ARCHS, from_config
from crate_analysis.models.shapes import listing, settle_config
from crate_analysis.models.unrolled import UnrolledModel
from crate_analysis.models.zoo import shipped_files, snapshot_files
from crate_analysis.specs import FILE_ENDINGS, ModelSpec, parse_spec, parse_specs

NESTED_UNDER = ("teacher", "student", "state_dict", "model")
"""Keys of a training checkpoint that hold the weights, the preferred one first."""
DINO_HEAD = ("head.mlp.", "head.last_layer.")
"""DINO's projection head, which a training checkpoint keeps beside the backbone."""


def load_model(
    spec: str | os.PathLike[str] | ModelSpec,
    arch: str | None = None,
    device: str | torch.device = "cpu",
    **overrides: Any,
) -> UnrolledModel:
    """A trained model, in eval mode and in float32; `model.name` is the spec's label.

    Parameters
    ----------
    spec : `[LABEL=]WHAT[@ARCH][@field=value,...]` (see `specs.parse_spec`), where WHAT is a
        shipped model (see `list_models`), or a file: `.safetensors`, or a pickle of
        any other ending. Files may be released CRATE checkpoints (plain, or under `state_dict` or
        `model`, with or without `module.`, with or without the demo's extra `head`), DINO's (the
        backbone, or a training checkpoint, of which the teacher is taken), or timm's ViTs; those
        on the Hugging Face hub are named `hf:OWNER/REPO` (see `hub.fetch`).
        `released_checkpoints` lists what is public.
    arch : the architecture (see `build_model`), to settle what the weights leave open: the number
        of heads; ISTA with ReLU or soft threshold; step size and sparsity; the mean and deviation
        that pictures are normalised by, ImageNet's where it is not named. The width of the
        classifier and the picture size are the file's and may differ from it.
    device : where the model is put.
    overrides : config fields with the same use: `heads=6`, or
        `pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5)`. Where the weights or the record in
        our own files say otherwise, that is an error.

    Raises FileNotFoundError for a missing file, IsADirectoryError for a folder,
    ModuleNotFoundError for a file on the hub without the optional dependency, and ValueError for
    a spec of another form, an unknown name (the nearest is suggested), a truncated file, a pickle
    with code in it (which is not run), NaN, weights of another architecture, or any key that is
    missing, left over or of the wrong shape. Each message is one line that names the file.

    >>> model = load_model("mine=crate-creatures")
    >>> model.name, model.config.heads
    ('mine', 4)
    """
    asked = completed(parse_spec(spec), arch, overrides)
    path = locate(asked)
    with _naming(path):
        weights, recorded = read_checkpoint(path)
        config = settle_config(weights, recorded, asked.arch, asked.fields)
        with torch.device("meta"):  # no memory and no random numbers for what is replaced anyway
            model = from_config(config)
        check_fit(weights, model)
        model.load_state_dict(weights, assign=True)
    model.name = asked.label
    return model.eval().to(device)


def load_models(
    specs: Sequence[str | os.PathLike[str] | ModelSpec], device: str | torch.device = "cpu"
) -> dict[str, UnrolledModel]:
    """Several models by `load_model`, under the labels that tables and figures call them.

    Raises ValueError where none is named or two would be called the same (see
    `specs.parse_specs`), before any is loaded, and what `load_model` raises.

    >>> list(load_models(["crate-creatures", "other=vit-creatures"]))
    ['crate-creatures', 'other']
    """
    return {spec.label: load_model(spec, device=device) for spec in parse_specs(specs)}


def load_snapshots(
    spec: str | os.PathLike[str] | ModelSpec, device: str | torch.device = "cpu"
) -> Iterator[tuple[int, UnrolledModel]]:
    """A model as it was along its training: pairs of step and model, in order, loaded one by one.

    `spec` is the trained model's, as for `load_model`; its snapshots are files `step-N` in
    `snapshots/` beside it, as `python -m crate_analysis.training train` keeps them. All are called
    by the trained model's label. Where none were kept there are no pairs.

    Raises what `load_model` raises.
    """
    trained = parse_spec(spec)
    files = snapshot_files(locate(trained))
    return (
        (step, load_model(replace(trained, what=str(file)), device=device))
        for step, file in files.items()
    )


def save_model(
    model: UnrolledModel,
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write weights and config as a `.safetensors` file, which appears whole or not at all.

    `metadata` goes into the file's header, beside the key `config`, which is ours; float16 halves
    the file. Raises ValueError for another ending and for a weight that is not finite in `dtype`.
    """
    path = Path(path)
    with _naming(path):
        if path.suffix != ".safetensors":
            raise ValueError("a model is written as safetensors; end the name in .safetensors")
        weights = {key: w.to("cpu", dtype).contiguous() for key, w in model.state_dict().items()}
        check_finite(weights)
    part = path.with_name(path.name + ".part")
    try:
        save_file(weights, part, {**(metadata or {}), "config": json.dumps(model.config.to_dict())})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file's name before the message of an error about what is in it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


# --- which file ---------------------------------------------------------------------------------


def completed(spec: ModelSpec, arch: str | None, overrides: Mapping[str, Any]) -> ModelSpec:
    """The spec with what the call adds to it; ValueError where the two say different things."""
    if arch and spec.arch and arch != spec.arch:
        raise ValueError(f"{str(spec)!r}: arch={arch!r} says otherwise; name one architecture")
    for name in overrides.keys() & spec.fields.keys():
        if overrides[name] != spec.fields[name]:
            raise ValueError(
                f"{str(spec)!r}: {name}={overrides[name]!r} says otherwise; name one value"
            )
    return replace(spec, arch=arch or spec.arch, fields={**spec.fields, **overrides})


def locate(spec: ModelSpec) -> Path:
    """The file with a model's weights; one on the hub is fetched, and its local copy given."""
    name = spec.what
    if hub.is_on_hub(name):
        return hub.fetch(name)
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if _has_separator(name) or path.suffix in FILE_ENDINGS:
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder; name a checkpoint file in it")
        near = difflib.get_close_matches(path.name, _names_in(path.parent), n=1)
        hint = f"did you mean {path.with_name(near[0])}?" if near else "check the path"
        raise FileNotFoundError(f"there is no file {path}; {hint}")
    shipped = shipped_files()
    if name not in shipped:
        raise ValueError(f"there is no shipped model {name!r}; {_nearest_model(name, shipped)}")
    return shipped[name]


def _has_separator(text: str) -> bool:
    return "/" in text or os.sep in text


def _names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _nearest_model(name: str, shipped: Mapping[str, Path]) -> str:
    near = difflib.get_close_matches(name, [*shipped, *ARCHS], n=1)
    if not near:
        return f"shipped: {', '.join(shipped) or 'none'}; a file is named with its folder or ending"
    if near[0] in shipped:
        return f"did you mean {near[0]!r}?"
    return f"{near[0]!r} is an architecture, build_model builds it untrained"


# --- what is in it ------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights in float32 under plain names, and the config that the file records, if any."""
    if path.suffix == ".safetensors":
        stored, recorded = _read_safetensors(path)
    else:
        stored, recorded = _read_pickle(path), {}
    weights = backbone(unwrap(stored))
    check_finite(weights)
    return {key: w.to(torch.float32, copy=True) for key, w in weights.items()}, recorded


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"truncated or not a safetensors file ({error}); copy or download it again"
        ) from error
    if "config" not in metadata:
        return weights, {}
    try:
        return weights, ModelConfig(**json.loads(metadata["config"])).to_dict()
    except (TypeError, ValueError) as error:
        raise ValueError(f"the config in its metadata is broken: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        # A Namespace is a plain record: DINO's and timm's training files keep their options in one.
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # remarks on formats, of which errors say enough
            return torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # a damaged pickle can fail in any way
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


def unwrap(stored: Any) -> dict[str, Tensor]:
    """The named weights in a checkpoint, out of their nesting and without `module.`."""
    if isinstance(stored, Mapping):
        nested = [stored[key] for key in NESTED_UNDER if isinstance(stored.get(key), Mapping)]
        stored = nested[0] if nested else stored
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
    weights = dict(stored)
    while all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): w for key, w in weights.items()}
    return weights


def backbone(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A DINO training checkpoint's backbone, without the projection head; others as they are."""
    if not any(key.startswith("backbone.") for key in weights):
        return dict(weights)
    inside = {key: w for key, w in weights.items() if not key.startswith(DINO_HEAD)}
    outside = [key for key in inside if not key.startswith("backbone.")]
    if outside:
        raise ValueError(f"{listing(outside, 'left over')} outside of backbone.")
    return {key.removeprefix("backbone."): w for key, w in inside.items()}


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a weight that is NaN, infinite, or no floating-point number."""
    for key, w in weights.items():
        if not w.is_floating_point():
            raise ValueError(f"{key} holds {w.dtype}, not floating-point weights")
        if not w.isfinite().all():
            raise ValueError(
                f"{key} holds NaN or infinity in {w.dtype}; take an earlier or a wider one"
            )


def check_fit(weights: Mapping[str, Tensor], model: UnrolledModel) -> None:
    """Raise ValueError that names what is missing, left over or of the wrong shape."""
    needed = {key: tuple(w.shape) for key, w in model.state_dict().items()}
    faults = [
        listing([key for key in needed if key not in weights], "missing"),
        listing([key for key in weights if key not in needed], "left over"),
        listing(
            [
                f"{key} {tuple(weights[key].shape)} in place of {shape}"
                for key, shape in needed.items()
                if key in weights and weights[key].shape != shape
            ],
            "of the wrong shape",
        ),
    ]
    if any(faults):
        raise ValueError(
            f"not a supported {model.config.family} checkpoint: {'; '.join(filter(None, faults))}"
        )
