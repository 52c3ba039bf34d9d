"""What a model's weights say about it, and who settles the rest.

They say everything but what leaves no trace in them: the number of heads, above all, and which
threshold and step ISTA takes. That comes from the file's own record, from files beside it or from
the caller, and is never guessed; only where all published networks of a layout agree it is theirs.
Nor do weights show the mean and deviation of the pixels; those are ImageNet's where nobody says
otherwise, and timm's augreg files look just like others, so there the name must say it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from crate_analysis.models.config import IMAGENET_MEAN, ModelConfig, checked_fields
from crate_analysis.models.layouts import listing
from crate_analysis.models.registry import ARCHS, arch_config

DATA_FIELDS = ("image_size", "num_classes", "pixel_mean", "pixel_std")
"""What follows from the images a model was trained on; a file may differ in it from its arch."""
SOURCE_FIELDS = ("norm_eps", "head_eps", "position_resize")
"""What follows from whose code a model was trained in; the file's layout knows it better."""


def settle_config(
    weights: Mapping[str, Tensor],
    recorded: Mapping[str, Mapping[str, Any]],
    arch: str | None,
    overrides: Mapping[str, Any],
    source: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """The one config on which the shapes, what is recorded and the caller agree.

    Parameters
    ----------
    weights : under our names.
    recorded : what each record says, by the record's name, the first one having the last word.
    arch, overrides : what the caller says.
    source : what follows from the layout where nobody says otherwise.

    Raises ValueError for a field on which two differ, and, with the candidates, where nothing
    settles the number of heads.
    """
    overrides = checked_fields(overrides)
    named = arch_config(arch).to_dict() if arch else {}
    shapes = read_fields(weights)
    settled: dict[str, Any] = {}
    said_by: dict[str, str] = {}
    open_to_arch = {
        key: named[key] for key in named if key not in (*DATA_FIELDS, *SOURCE_FIELDS, *overrides)
    }
    claims = {**recorded, "the call": overrides, (arch or "the arch"): open_to_arch}
    for source_name, fields in claims.items():
        for field, value in checked_fields(fields).items():
            if field in settled and settled[field] != value:
                raise ValueError(
                    f"{field} is {settled[field]!r} in {said_by[field]}, "
                    f"but {value!r} in {source_name}"
                )
            if not fits(shapes, field, value):
                raise ValueError(
                    f"{field} is {shapes[field]!r} in the file, but {value!r} in {source_name}"
                )
            settled[field], said_by[field] = value, source_name
    known = {**named, **(source or {}), **shapes, **settled}
    if "heads" not in known:
        known["heads"] = settle_heads(shapes)
    return ModelConfig(**known)


def fits(shapes: Mapping[str, Any], field: str, value: Any) -> bool:
    """Whether weights with these fields can be those of a model with this value."""
    if field not in shapes:
        return True
    if field == "nonlinearity" and shapes[field] == "ista":  # both thresholds have one dictionary
        return value in ("ista", "ista_soft")
    if field == "mlp_ratio":  # a hidden width is whole
        return isinstance(value, int | float) and math.isclose(
            shapes[field] * shapes["dim"], value * shapes["dim"], abs_tol=0.5
        )
    return shapes[field] == value


def settle_heads(shapes: Mapping[str, Any]) -> int:
    """The number of heads where one alone is possible; otherwise a ValueError with the candidates.

    One alone is possible for a prime width, because CRATE's output map is there for any number of
    heads but one. (Without the map there is one head: `read_fields` sees that.)
    """
    dim = shapes["dim"]
    least = 2 if shapes["family"] == "crate" else 1
    small = [heads for heads in range(1, math.isqrt(dim) + 1) if dim % heads == 0]
    divisors = [h for h in sorted({*small, *(dim // heads for heads in small)}) if h >= least]
    if len(divisors) == 1:
        return divisors[0]
    bound = {field: value for field, value in shapes.items() if field not in DATA_FIELDS}
    named = [
        f"{name} ({_open(config)})"
        for name, config in ARCHS.items()
        if all(fits(shapes, field, getattr(config, field)) for field in bound)
    ]
    example = next((heads for heads in divisors if dim // heads <= 64), divisors[-1])
    raise OpenHeadsError(
        f'the weights do not tell the number of heads; write models: ["FILE@ARCH"] with ARCH one '
        f"of {', '.join(named) or '(no known architecture agrees)'}, or "
        f'models: ["FILE@heads={example}"] with a divisor of {dim}: '
        f"{', '.join(map(str, divisors))}"
    )


class OpenHeadsError(ValueError):
    """Nothing settles the number of heads; FILE in the message stands for what was given."""


def _open(config: ModelConfig) -> str:
    """What an architecture settles beside the shapes: heads, and pixels where not ImageNet's."""
    scale = "" if config.pixel_mean == IMAGENET_MEAN else f", pixel mean {config.pixel_mean[0]}"
    return f"{config.heads} heads{scale}"


def read_fields(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config fields that names and shapes settle; `nonlinearity` only up to the threshold."""
    if "patch_embed.proj.weight" in weights:
        return _vit_fields(weights)
    return _crate_fields(weights)


def _vit_fields(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    dim, _, patch_size, _ = _shape(weights, "patch_embed.proj.weight", 4)
    hidden, _ = _shape(weights, "blocks.0.mlp.fc1.weight", 2)
    _some(dim=dim, patch_size=patch_size)
    registers = "register_tokens"
    return {
        "family": "vit",
        "image_size": patch_size * _grid(weights, "pos_embed"),
        "patch_size": patch_size,
        "dim": dim,
        "depth": _depth(weights, "blocks"),
        "num_classes": _width(weights, "head.weight"),
        "attention": "mhsa",
        "nonlinearity": "mlp",
        "mlp_ratio": hidden / dim,
        "projector_dim": 0,
        "stem": "conv",
        "layer_scale": "blocks.0.ls1.gamma" in weights,
        "registers": _shape(weights, registers, 3)[1] if registers in weights else 0,
    }


def _crate_fields(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    stem = "conv" if "conv1.weight" in weights else "linear"
    if stem == "conv":
        dim, _, patch_size, _ = _shape(weights, "conv1.weight", 4)
    else:
        dim, patch_dim = _shape(weights, "to_patch_embedding.2.weight", 2)
        patch_size = math.isqrt(patch_dim // 3)
        if patch_dim != 3 * patch_size**2:
            raise ValueError(
                f"to_patch_embedding.2.weight takes {patch_dim} values, no square of RGB"
            )
    _some(dim=dim, patch_size=patch_size)
    layer = "transformer.layers.0"
    rows, _ = _shape(weights, f"{layer}.0.fn.qkv.weight", 2)
    has_projector = "head.weight" in weights
    fields = {
        "family": "crate",
        "image_size": patch_size * _grid(weights, "pos_embedding"),
        "patch_size": patch_size,
        "dim": dim,
        "depth": _depth(weights, "transformer.layers"),
        "num_classes": _width(weights, "head.weight" if has_projector else "mlp_head.1.weight"),
        "attention": "mhsa" if rows == 3 * dim else "mssa",
        "nonlinearity": "ista",
        "projector_dim": _width(weights, "mlp_head.1.weight") if has_projector else 0,
        "stem": stem,
    }
    if f"{layer}.1.fn.fc1.weight" in weights:
        fields["nonlinearity"] = "mlp"
        fields["mlp_ratio"] = _shape(weights, f"{layer}.1.fn.fc1.weight", 2)[0] / dim
    elif f"{layer}.1.fn.D" in weights:
        fields["nonlinearity"] = "ista_overcomplete"
        fields["mlp_ratio"] = _shape(weights, f"{layer}.1.fn.D", 2)[1] / dim
    if f"{layer}.0.fn.to_out.0.weight" in weights:
        fields["output_bias"] = f"{layer}.0.fn.to_out.0.bias" in weights
    else:
        fields["heads"] = 1  # the released code leaves the output map out for one head only
    return fields


def _shape(weights: Mapping[str, Tensor], key: str, axes: int) -> tuple[int, ...]:
    if key not in weights:
        raise ValueError(f"1 missing: {key}")
    shape = tuple(weights[key].shape)
    if len(shape) != axes:
        raise ValueError(f"1 of the wrong shape: {key} {shape} in place of {axes} axes")
    return shape


def _some(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"the patch embedding leaves {name}={size}")


def _width(weights: Mapping[str, Tensor], key: str) -> int:
    return _shape(weights, key, 2)[0] if key in weights else 0


def _depth(weights: Mapping[str, Tensor], stem: str) -> int:
    """One more than the largest layer number, so that a gap shows as missing keys.

    A number that is far above that of the weights is one left over, and builds no layers.
    """
    pattern = re.compile(rf"{re.escape(stem)}\.(\d{{1,9}})\.")
    numbers = {int(match[1]): key for key in weights if (match := pattern.match(key))}
    depth = 1 + max(numbers)
    if depth > len(weights):
        raise ValueError(f"1 left over: {numbers[depth - 1]}, of a layer far behind the last")
    return depth


def _grid(weights: Mapping[str, Tensor], key: str) -> int:
    """Patches along a side, from the positions of `[CLS]` and a square grid."""
    _shape(weights, "cls_token", 3)
    tokens = _shape(weights, key, 3)[1]
    side = math.isqrt(max(tokens - 1, 0))
    if side < 1 or tokens != 1 + side**2:
        extra = [k for k, w in weights.items() if w.ndim == 3 and k not in ("cls_token", key)]
        raise ValueError(
            f"{key} has {tokens} positions, not those of [CLS] and a square grid"
            + (f"; {listing(extra, 'left over')}" if extra else "")
        )
    return side
