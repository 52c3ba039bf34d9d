from __future__ import annotations

import json
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from crate_analysis.models import ModelConfig, UnrolledModel
from crate_analysis.models.registry import from_config

ALPHA = {
    "nonlinearity": "ista_overcomplete",
    "stem": "conv",
    "output_bias": False,
    "norm_eps": 1e-6,
}
MAE = {"stem": "conv", "sparsity": 0.5, "head_eps": 1e-6}
DINOV2 = {"layer_scale": True, "registers": 2, "position_resize": "antialias"}
TINY = {
    "crate": ModelConfig("crate", 16, 4, 12, 3, 3, 5),
    "crate-soft": ModelConfig("crate", 16, 4, 12, 3, 3, 5, nonlinearity="ista_soft"),
    "crate-mlp": ModelConfig("crate", 16, 4, 12, 3, 3, 5, nonlinearity="mlp"),
    "crate-mhsa": ModelConfig("crate", 16, 4, 12, 3, 3, 5, attention="mhsa"),
    "crate-one-head": ModelConfig("crate", 16, 4, 12, 3, 1, 5),
    "crate-demo": ModelConfig("crate", 16, 4, 12, 3, 3, 5, projector_dim=12),
    "crate-overcomplete": ModelConfig(
        "crate", 16, 4, 12, 3, 3, 5, nonlinearity="ista_overcomplete", mlp_ratio=2.0
    ),
    "crate-alpha": ModelConfig("crate", 16, 4, 12, 3, 3, 5, **ALPHA),
    "crate-mae": ModelConfig("crate", 16, 4, 12, 3, 3, 0, **MAE),
    "vit-dinov2": ModelConfig("vit", 16, 4, 12, 3, 3, 0, "mhsa", "mlp", **DINOV2),
    "vit": ModelConfig("vit", 16, 4, 12, 3, 3, 5, "mhsa", "mlp"),
    "vit-registers": ModelConfig("vit", 16, 4, 12, 3, 3, 5, "mhsa", "mlp", registers=2),
    "vit-backbone": ModelConfig("vit", 16, 4, 12, 3, 3, 0, "mhsa", "mlp"),
}


def tiny_model(kind: str, seed: int = 0) -> UnrolledModel:
    """A model with weights of a size at which every part of it matters."""
    torch.manual_seed(seed)
    model = from_config(TINY[kind]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These models are too small to share out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=sorted(TINY))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(kind: str) -> UnrolledModel:
    return tiny_model(kind)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def build_tiny():
    """`tiny_model`, for tests that need one kind only."""
    return tiny_model


# --- how others name and keep weights ----------------------------------------------------------


def renamed(weights, *rules):
    found = {}
    for key, weight in weights.items():
        for pattern, new in rules:
            key = re.sub(pattern, new, key)
        found[key] = weight
    return found


def under(prefix, weights):
    return {prefix + key: weight for key, weight in weights.items()}


def split_qkv(weights, names):
    found = {}
    for key, weight in weights.items():
        if ".qkv." in key:
            for name, part in zip(names, weight.chunk(3), strict=True):
                found[key.replace("qkv", name)] = part
        else:
            found[key] = weight
    return found


def transformers(weights, live=False):
    """Our ViT's weights as the transformers library names them, saved or in memory."""
    names = [f"{c}_proj" for c in "qkv"] if live else ["attention.query", "attention.key"]
    names = names if live else [*names, "attention.value"]
    return renamed(
        split_qkv(weights, names),
        (r"^norm\.", "layernorm."),
        (r"^head\.", "classifier."),
        (r"^(cls_token|register_tokens)", r"embeddings.\1"),
        (r"^pos_embed", "embeddings.position_embeddings"),
        (r"^patch_embed.proj", "embeddings.patch_embeddings.projection"),
        (r"\.attn\.proj", ".attention.o_proj" if live else ".attention.output.dense"),
        (r"\.attn\.", ".attention."),
        (r"\.ls([12])\.gamma", r".layer_scale\1.lambda1"),
        (r"^blocks", "layers" if live else "encoder.layer"),
    )


def transformers_vit(weights, live=False):
    old = () if live else ((r"mlp\.fc1", "intermediate.dense"), (r"mlp\.fc2", "output.dense"))
    return renamed(
        transformers(weights, live),
        (r"norm1", "layernorm_before"),
        (r"norm2", "layernorm_after"),
        *old,
    )


def crate_mae(weights):
    return renamed(
        weights,
        ("conv1", "patch_embed.proj"),
        ("pos_embedding", "pos_embed"),
        (r"transformer\.layers\.(\d+)", r"blocks.\1.layers.0"),
        (r"mlp_head\.0", "norm"),
    )


def chunked(weights):
    return renamed(weights, (r"blocks\.(\d+)", r"blocks.0.\1"))


def sharded(weights, folder, ending="safetensors"):
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = sorted(weights)
    listed = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        name = f"{stem}-{number:05d}-of-00002.{ending}"
        shard = {key: weights[key].contiguous() for key in part}
        (save_file if ending == "safetensors" else torch.save)(shard, folder / name)
        listed |= dict.fromkeys(part, name)
    index = folder / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": listed}))
    return index


@pytest.fixture
def others() -> SimpleNamespace:
    """Our weights under other people's names."""
    return SimpleNamespace(
        renamed=renamed,
        under=under,
        transformers=transformers,
        transformers_vit=transformers_vit,
        crate_mae=crate_mae,
        chunked=chunked,
        sharded=sharded,
    )
