"""What a file's keys and shapes say about its model, and who settles the rest.

They say everything but what leaves no trace in them: the number of heads, above all, and which
threshold and step ISTA takes. That comes from the file's own record or from the caller, and is
never guessed. Nor do they show the mean and deviation of the pixels; those are ImageNet's where
nobody says otherwise, and timm's augreg files look just like others, so there the name must say it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from crate_analysis.models.config import IMAGENET_MEAN, ModelConfig, check_field_names
from crate_analysis.models.registry import ARCHS, arch_config

DATA_FIELDS = ("image_size", "num_classes", "pixel_mean", "pixel_std")
"""What follows from the pictures a model was trained on; a file may differ in it from its arch."""


def settle_config(
    weights: Mapping[str, Tensor],
    recorded: Mapping[str, Any],
    arch: str | None,
    overrides: Mapping[str, Any],
) -> ModelConfig:
    """The one config on which the shapes, the file's record and the caller agree.

    Raises ValueError for a field on which they differ, and, with the candidates, where nothing
    settles the number of heads.
    """
    check_field_names(overrides)
    named = arch_config(arch).to_dict() if arch else {}
    shapes = read_fields(weights)
    settled: dict[str, Any] = {}
    for source, claims in (
        ("the file's metadata", recorded),
        ("the call", overrides),
        (arch, {key: named[key] for key in named if key not in (*DATA_FIELDS, *overrides)}),
    ):
        for field, value in claims.items():
            known = settled if field in settled else shapes
            agrees = settled[field] == value if field in settled else fits(shapes, field, value)
            if not agrees:
                raise ValueError(
                    f"{field} is {known[field]!r} in the file, but {value!r} in {source}"
                )
            settled[field] = value
    fields = {**named, **shapes, **settled}
    if "heads" not in fields:
        fields["heads"] = settle_heads(shapes)
    return ModelConfig(**fields)


def fits(shapes: Mapping[str, Any], field: str, value: Any) -> bool:
    """Whether weights with these fields can be those of a model with this value."""
    if field not in shapes:
        return True
    if field == "nonlinearity":  # both thresholds have the same dictionary
        return value in (shapes[field], f"{shapes[field]}_soft")
    if field == "mlp_ratio":  # a hidden width is whole
        return round(shapes[field] * shapes["dim"]) == round(value * shapes["dim"])
    return shapes[field] == value


def settle_heads(shapes: Mapping[str, Any]) -> int:
    """The number of heads where one alone is possible; otherwise a ValueError with the candidates.

    One alone is possible for a prime width, because CRATE's output map is there for any number of
    heads but one. (Without the map there is one head: `read_fields` sees that.)
    """
    dim = shapes["dim"]
    least = 2 if shapes["family"] == "crate" else 1
    divisors = [heads for heads in range(least, dim + 1) if dim % heads == 0]
    if len(divisors) == 1:
        return divisors[0]
    bound = {field: value for field, value in shapes.items() if field not in DATA_FIELDS}
    named = [
        f"{name} ({_open(config)})"
        for name, config in ARCHS.items()
        if all(fits(shapes, field, getattr(config, field)) for field in bound)
    ]
    raise ValueError(
        f"the weights do not tell the number of heads; pass arch= or FILE@ARCH with one of "
        f"{', '.join(named) or '(no known architecture agrees)'}, "
        f"or heads= with a divisor of {dim}: {', '.join(map(str, divisors))}"
    )


def _open(config: ModelConfig) -> str:
    """What an architecture settles beside the shapes: heads, and pixels where not ImageNet's."""
    scale = "" if config.pixel_mean == IMAGENET_MEAN else f", pixel mean {config.pixel_mean[0]}"
    return f"{config.heads} heads{scale}"


def read_fields(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config fields that keys and shapes settle; `nonlinearity` only up to the threshold."""
    if "patch_embed.proj.weight" in weights:
        return _vit_fields(weights)
    if "to_patch_embedding.2.weight" in weights:
        return _crate_fields(weights)
    raise ValueError(
        "neither CRATE nor a DINO or timm ViT: no patch embedding among "
        f"{listing(list(weights), 'keys')}"
    )


def _vit_fields(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    dim, _, patch_size, _ = _shape(weights, "patch_embed.proj.weight", 4)
    hidden, _ = _shape(weights, "blocks.0.mlp.fc1.weight", 2)
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
    }


def _crate_fields(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    dim, patch_dim = _shape(weights, "to_patch_embedding.2.weight", 2)
    patch_size = math.isqrt(patch_dim // 3)
    if patch_dim != 3 * patch_size**2:
        raise ValueError(f"to_patch_embedding.2.weight takes {patch_dim} values, no square of RGB")
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
    }
    if f"{layer}.1.fn.fc1.weight" in weights:
        fields["nonlinearity"] = "mlp"
        fields["mlp_ratio"] = _shape(weights, f"{layer}.1.fn.fc1.weight", 2)[0] / dim
    if f"{layer}.0.fn.to_out.0.weight" not in weights:
        fields["heads"] = 1  # the released code leaves the output map out for one head only
    return fields


def _shape(weights: Mapping[str, Tensor], key: str, axes: int) -> tuple[int, ...]:
    if key not in weights:
        raise ValueError(f"1 missing: {key}")
    shape = tuple(weights[key].shape)
    if len(shape) != axes:
        raise ValueError(f"1 of the wrong shape: {key} {shape} in place of {axes} axes")
    return shape


def _width(weights: Mapping[str, Tensor], key: str) -> int:
    return _shape(weights, key, 2)[0] if key in weights else 0


def _depth(weights: Mapping[str, Tensor], stem: str) -> int:
    """One more than the largest layer number, so that a gap shows as missing keys."""
    numbers = (re.match(rf"{re.escape(stem)}\.(\d+)\.", key) for key in weights)
    return 1 + max(int(number[1]) for number in numbers if number)


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


def listing(items: list[str], fault: str) -> str:
    """Such as `5 missing: a, b, c, ...`; nothing for none."""
    more = ", ..." if len(items) > 3 else ""
    return f"{len(items)} {fault}: {', '.join(items[:3])}{more}" if items else ""
