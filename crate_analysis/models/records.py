"""What is recorded of a model beside its weights, as fields of our config.

That is in a checkpoint the options of its training (`arch`, `args`), and beside a file a
`config.json` and a `preprocessor_config.json`, as the transformers library and timm write them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crate_analysis.models.files import read_json
from crate_analysis.models.hub import COMPANIONS, DEFAULT_FILES
from crate_analysis.models.registry import ARCHS

MODEL_TYPES = ("vit", "deit", "vit_mae", "vit_msn", "dinov2", "dinov2_with_registers")
"""Of the transformers library, those that are read."""
FIELDS = {
    "num_attention_heads": "heads",
    "hidden_size": "dim",
    "num_hidden_layers": "depth",
    "patch_size": "patch_size",
    "image_size": "image_size",
    "layer_norm_eps": "norm_eps",
}
"""Of the transformers library's configs, and ours."""

OPTIONS = {
    "heads": ("heads", "num_heads", "n_heads", "num_attention_heads"),
    "step_size": ("step_size", "eta", "ista", "ista_step", "ista_step_size"),
    "sparsity": ("sparsity", "lambd", "lambda", "lambda_", "lmbda"),
}
"""Our fields, and what training scripts call them."""
SPARSE_CODING = ("step_size", "sparsity")
MEANS = ("mean", "avg", "gap", "average")
"""What a pooling other than `[CLS]` is called."""
NAMED = {
    # CRATE's training code
    r"crate_tiny": "crate_tiny_patch16_224.neurips23",
    r"crate_small": "crate_small_patch16_224.neurips23",
    r"crate_base": "crate_base_patch16_224.neurips23",
    r"crate_large": "crate_large_patch16_224.neurips23",
    # DINO's, MoCo's, DeiT's and timm's
    r"(?:vit|deit)_?tiny.*": "vit_tiny_patch16_224",
    r"(?:vit|deit)_?small.*": "vit_small_patch16_224",
    r"(?:vit|deit)_?base.*": "vit_base_patch16_224",
    r"(?:mae_)?vit_large.*": "vit_large_patch14_518.dinov2",
    r"mae_vit_base.*": "vit_base_patch16_224",
}
"""Architectures as checkpoints name them, and one of ours with the same number of heads."""


def options_of(record: Mapping[str, Any], family: str, dim: int) -> dict[str, Any]:
    """What a training checkpoint says of its network, as config fields.

    The architecture that it names settles the number of heads, where its width is the weights'.
    Raises ValueError for a classifier that does not read `[CLS]`.
    """
    pool = next(
        (record[key] for key in ("pool", "global_pool", "pool_type") if key in record), None
    )
    if pool is True or (isinstance(pool, str) and pool.lower() in MEANS):
        raise ValueError(
            f"was trained with pool={pool!r}, a mean over patches, and a model here reads [CLS]; "
            "take a checkpoint trained with pool='cls'"
        )
    found: dict[str, Any] = {}
    for field, names in OPTIONS.items():
        if family != "crate" and field in SPARSE_CODING:
            continue
        for name in names:
            if isinstance(record.get(name), int | float | str) and name in record:
                found[field] = _number(record[name])
                break
    if "heads" not in found:
        for key in ("arch", "model", "model_name", "architecture"):
            named = record.get(key)
            heads = _heads_of(named, family, dim) if isinstance(named, str) else None
            if heads:
                found["heads"] = heads
                break
    return found


def _number(value: Any) -> Any:
    """Metadata of safetensors are texts, numbers too."""
    if isinstance(value, str):
        for kind in (int, float):
            try:
                return kind(value)
            except ValueError:
                continue
    return value


def _heads_of(named: str, family: str, dim: int) -> int | None:
    config = ARCHS.get(named)
    if config is None:
        for pattern, arch in NAMED.items():
            if re.fullmatch(pattern, named.lower()):
                config = ARCHS[arch]
                break
    if config is None or (config.family, config.dim) != (family, dim):
        return None
    return config.heads


def companions_of(path: Path, is_transformers: bool) -> dict[str, dict[str, Any]]:
    """What the small files beside the weights say, as config fields by file.

    Raises ValueError for a file that is broken and for a network that is not read.
    """
    found: dict[str, dict[str, Any]] = {}
    if not is_transformers and path.name not in DEFAULT_FILES:
        return found  # what lies beside a file of any other name may belong to another model
    config, preprocessing = (path.with_name(name) for name in COMPANIONS)
    if config.is_file():
        content = read_json(config)
        if isinstance(content, dict) and "model_type" in content and is_transformers:
            found[config.name] = _of_transformers(content)
        elif isinstance(content, dict) and "architecture" in content:
            found[config.name] = _of_timm(content)
    if preprocessing.is_file():
        content = read_json(preprocessing)
        if isinstance(content, dict) and content.get("do_normalize", True):
            found[preprocessing.name] = _pixels(content, "image_mean", "image_std")
    return {name: fields for name, fields in found.items() if fields}


def _of_transformers(content: Mapping[str, Any]) -> dict[str, Any]:
    kind = content["model_type"]
    if kind not in MODEL_TYPES:
        raise ValueError(
            f"config.json says model_type {kind!r}, which is not read; read are "
            f"{', '.join(MODEL_TYPES)}"
        )
    if content.get("use_swiglu_ffn"):
        raise ValueError("config.json says use_swiglu_ffn, an MLP with a gate, which is not read")
    activation = content.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ValueError(f"config.json says hidden_act {activation!r}; only 'gelu' is read")
    fields = {ours: content[theirs] for theirs, ours in FIELDS.items() if theirs in content}
    for name in ("image_size", "patch_size"):
        size = fields.get(name)
        if isinstance(size, list) and len(set(size)) == 1:
            fields[name] = size[0]
    if "num_register_tokens" in content:
        fields["registers"] = content["num_register_tokens"]
    return fields


def _of_timm(content: Mapping[str, Any]) -> dict[str, Any]:
    if content.get("global_pool") in MEANS and content.get("num_classes"):
        raise ValueError(
            f"config.json says global_pool {content['global_pool']!r}, and a model here reads "
            "[CLS]; take one trained with [CLS]"
        )
    trained = content.get("pretrained_cfg")
    if not isinstance(trained, dict):
        trained = content  # older files
    fields = _pixels(trained, "mean", "std")
    name = str(content["architecture"])
    for known in (f"{name}.{trained.get('tag')}", name):
        if known in ARCHS:
            return fields | {"heads": ARCHS[known].heads}
    return fields


def _pixels(content: Mapping[str, Any], mean: str, std: str) -> dict[str, Any]:
    pairs = (("pixel_mean", mean), ("pixel_std", std))
    return {
        ours: tuple(content[theirs]) if isinstance(content[theirs], list) else content[theirs]
        for ours, theirs in pairs
        if theirs in content
    }
