"""Model files: read exactly or not at all, whoever wrote them, and our own, written.

`layouts` has the table of what is read, `files` the formats, `records` what lies beside weights.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from crate_analysis.distributed import as_device
from crate_analysis.models import hub
from crate_analysis.models.config import ModelConfig
from crate_analysis.models.files import Stored, find_in_folder, in_single_precision, read_file
from crate_analysis.models.layouts import Found, listing, recognise
from crate_analysis.models.onnx_backbone import SALIENCY_VITS14, saliency_vits14
from crate_analysis.models.records import companions_of, options_of
from crate_analysis.models.registry import ARCHS, from_config
from crate_analysis.models.shapes import OpenHeadsError, read_fields, settle_config
from crate_analysis.models.unrolled import UnrolledModel
from crate_analysis.models.zoo import shipped_files, snapshot_files
from crate_analysis.names import nearest
from crate_analysis.specs import FILE_ENDINGS, ModelSpec, parse_spec, parse_specs
from crate_analysis.writing import write_bytes


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
        shipped model (see `list_models`), a file (safetensors, or a pickle of tensors, or the
        index of either's shards) or a folder with one, or `hf:OWNER/REPO[/FILE]` on the Hugging
        Face hub (see `hub.fetch`). Read are CRATE, CRATE-alpha and CRATE-MAE, and ViTs as DINO,
        DINOv2, timm, MAE and the transformers library write them, under any wrapper; of a training
        checkpoint the teacher. `layouts.LAYOUTS` is the table, `released_checkpoints` lists what is
        public, and `model.notes` says how a file was read.
    arch : the architecture (see `build_model`), to settle what the weights leave open: the number
        of heads; ISTA with ReLU or soft threshold; step size and sparsity; the mean and deviation
        that images are normalised by, ImageNet's where nobody says. The width of the
        classifier and the image size are the file's and may differ from it.
    device : where the model is put.
    overrides : config fields with the same use: `heads=6`, or
        `pixel_mean=(0.5, 0.5, 0.5), pixel_std=(0.5, 0.5, 0.5)`. Where the weights or the record in
        our own files say otherwise, that is an error.

    Raises FileNotFoundError for a missing file, IsADirectoryError for a folder without one,
    ModuleNotFoundError for a file on the hub without the optional dependency, and ValueError for
    a spec of another form, an unknown name (the nearest is suggested), a device that is not there,
    a truncated file, a pickle with code in it (which is not run), NaN, a network that is not read
    (by its name, where it is known), or any key that is missing, left over or of the wrong shape.
    Each message is one line that names the file.

    >>> model = load_model("mine=crate-creatures")
    >>> model.name, model.config.heads
    ('mine', 4)
    """
    asked = completed(parse_spec(spec), arch, overrides)
    chosen = as_device(device)
    path = locate(asked)
    with _naming(path):
        try:
            model = _read_model(path, asked)
        except OpenHeadsError as error:
            raise ValueError(str(error).replace("FILE", _written(asked))) from error
    model.name = asked.label
    return model.eval().to(chosen)


def _read_model(path: Path, asked: ModelSpec) -> UnrolledModel:
    """The model in a file; a ValueError does not yet name the file."""
    stored = read_file(path)
    found = recognise(stored.tensors)
    config, notes = _config_of(path, stored, found, asked)
    with torch.device("meta"):  # no memory and no random numbers for what is replaced anyway
        model = from_config(config)
    check_fit(found, model)
    weights = {key: in_single_precision(found.name(key), w) for key, w in found.weights.items()}
    model.load_state_dict(weights, assign=True)
    model.notes = (*found.notes, *notes)
    return model


def _config_of(
    path: Path, stored: Stored, found: Found, asked: ModelSpec
) -> tuple[ModelConfig, list[str]]:
    """The config on which all sources agree, and what is not known from the file."""
    shapes = read_fields(found.weights)
    dim, family = shapes["dim"], shapes["family"]
    recorded: dict[str, Mapping[str, Any]] = {}
    notes: list[str] = []
    if stored.config is not None:
        recorded["the file's metadata"] = _own_record(stored.config)
    else:
        recorded |= companions_of(path, found.layout.reads_config)
        if options := options_of(stored.record, family, dim):
            recorded["the checkpoint's own record"] = options
    source = dict(found.settled)
    if dim in found.layout.heads:
        source["heads"] = found.layout.heads[dim]
    config = settle_config(found.weights, recorded, asked.arch, asked.fields, source)
    said = {field for fields in (*recorded.values(), asked.fields) for field in fields}
    if "heads" not in said and asked.arch is None and "heads" in source:
        notes.append(f"{config.heads} heads, as all published {found.layout.name} of this width")
    if family == "crate" and config.nonlinearity != "mlp" and asked.arch is None:
        unknown = [field for field in ("step_size", "sparsity") if field not in said]
        if unknown:
            notes.append(
                "not in the file, and taken from the released code: "
                + ", ".join(f"{field}={getattr(config, field)}" for field in unknown)
            )
    return config, notes


def _own_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """The config that our own files record."""
    try:
        return ModelConfig.from_dict(record).to_dict()
    except ValueError as error:
        raise ValueError(f"the config in its metadata is broken: {error}") from error


def _written(asked: ModelSpec) -> str:
    """What a longer spec of the same model begins with."""
    return str(replace(asked, arch=None, fields={}))


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
    header = {**(metadata or {}), "config": json.dumps(model.config.to_dict())}
    write_bytes(path, save(weights, header))


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
    if name == SALIENCY_VITS14:
        return saliency_vits14()
    try:
        path = Path(name).expanduser()
        path.exists()
    except (OSError, RuntimeError) as error:  # too long a name, nobody's home folder
        raise FileNotFoundError(f"{name[:200]!r} is the name of no file: {error}"[:400]) from error
    if path.is_dir() and (_has_separator(name) or name not in shipped_files()):
        return find_in_folder(path)
    if path.exists():
        return path
    if path.is_symlink():
        raise FileNotFoundError(
            f"{path} is a link to {os.readlink(path)}, which is not there; "
            "mend the link, or name the file itself"
        )
    if _has_separator(name) or path.name.endswith(FILE_ENDINGS):
        near = nearest(path.name, _names_in(path.parent), 0.6)
        hint = f"did you mean {path.with_name(near)}?" if near else "check the path"
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
    near = nearest(name, [*shipped, SALIENCY_VITS14, *ARCHS], 0.6)
    if near is None:
        return f"shipped: {', '.join(shipped) or 'none'}; a file is named with its folder or ending"
    if near not in ARCHS:
        return f"did you mean {near!r}?"
    return f"{near!r} is an architecture, build_model builds it untrained"


# --- what is in it ------------------------------------------------------------------------------


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a weight that is NaN or infinite."""
    for key, w in weights.items():
        if not w.isfinite().all():
            raise ValueError(
                f"{key} holds NaN or infinity in {w.dtype}; take an earlier or a wider one"
            )


def check_fit(found: Found, model: UnrolledModel) -> None:
    """Raise ValueError that names what is missing, left over or of the wrong shape."""
    weights = found.weights
    needed = {key: tuple(w.shape) for key, w in model.state_dict().items()}
    faults = [
        listing([found.name(key) for key in needed if key not in weights], "missing"),
        listing([found.name(key) for key in weights if key not in needed], "left over"),
        listing(
            [
                f"{found.name(key)} {tuple(weights[key].shape)} in place of {shape}"
                for key, shape in needed.items()
                if key in weights and weights[key].shape != shape
            ],
            "of the wrong shape",
        ),
    ]
    if any(faults):
        raise ValueError(f"not a whole {found.layout.name}: {'; '.join(filter(None, faults))}")
