"""Small models of every family, and their forward pass by hand, with a change on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crate_analysis.models import ModelConfig, UnrolledModel
from crate_analysis.models.registry import from_config

TINY = {
    "crate": ModelConfig("crate", 16, 4, 12, 3, 3, 5),
    "crate-soft": ModelConfig("crate", 16, 4, 12, 3, 3, 5, nonlinearity="ista_soft"),
    "crate-mlp": ModelConfig("crate", 16, 4, 12, 3, 3, 5, nonlinearity="mlp"),
    "crate-mhsa": ModelConfig("crate", 16, 4, 12, 3, 3, 5, attention="mhsa"),
    "crate-alpha": ModelConfig(
        "crate",
        16,
        4,
        12,
        3,
        3,
        5,
        nonlinearity="ista_overcomplete",
        stem="conv",
        output_bias=False,
    ),
    "vit": ModelConfig("vit", 16, 4, 12, 3, 3, 5, "mhsa", "mlp"),
    "vit-registers": ModelConfig(
        "vit", 16, 4, 12, 3, 3, 5, "mhsa", "mlp", registers=2, layer_scale=True
    ),
}

Hook = Callable[[int, str, Tensor], Tensor]
"""From a layer, a place and what stands there to what is to stand there."""


@pytest.fixture(params=sorted(TINY))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(kind: str) -> UnrolledModel:
    return build(kind)


@pytest.fixture
def build_tiny() -> Callable[[str], UnrolledModel]:
    return build


def build(kind: str) -> UnrolledModel:
    """A model with weights of a size at which every part of it matters."""
    torch.manual_seed(0)
    model = from_config(TINY[kind]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.double()  # so that only mistakes differ, not roundings


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def by_hand() -> Callable[..., Tensor]:
    return forward_by_hand


def forward_by_hand(
    model: UnrolledModel, images: Tensor, hook: Hook = lambda layer, place, value: value
) -> Tensor:
    """Logits from the formulas alone; `hook` is asked at every place of every layer."""
    config, w = model.config, dict(model.named_parameters())
    h = config.heads
    z = model.embed(images)
    for layer in range(config.depth):
        crate = config.family == "crate"
        stem = f"transformer.layers.{layer}." if crate else f"blocks.{layer}."
        eps = 1e-5 if crate else 1e-6
        names = ("0.norm", "1.norm") if crate else ("norm1", "norm2")

        def norm(z, name, stem=stem, eps=eps):
            scale, shift = w[stem + name + ".weight"], w[stem + name + ".bias"]
            centred = z - z.mean(-1, keepdim=True)
            return centred / (z.var(-1, keepdim=True, correction=0) + eps).sqrt() * scale + shift

        normed = norm(z, names[0])
        qkv = normed @ w[stem + ("0.fn.qkv.weight" if crate else "attn.qkv.weight")].T
        if not crate:
            qkv = qkv + w[stem + "attn.qkv.bias"]
        parts = qkv.chunk(3, -1) if config.attention == "mhsa" else [qkv]
        parts = [torch.stack(part.chunk(h, -1), 1) for part in parts]
        if config.attention == "mhsa":
            query, key, value = parts[0], hook(layer, "projections", parts[1]), parts[2]
        else:
            query = key = value = hook(layer, "projections", parts[0])
        logits = torch.einsum("bhqp,bhtp->bhqt", query, key) / query.shape[-1] ** 0.5
        rows = logits.exp() / logits.exp().sum(-1, keepdim=True)
        rows = hook(layer, "attention", rows)
        mixed = hook(layer, "head_outputs", torch.einsum("bhqt,bhtp->bhqp", rows, value))
        out = stem + ("0.fn.to_out.0." if crate else "attn.proj.")
        step = torch.cat(list(mixed.unbind(1)), -1) @ w[out + "weight"].T + w.get(out + "bias", 0)
        if config.layer_scale:
            step = step * w[stem + "ls1.gamma"]
        half = hook(layer, "half", z + step)

        z = norm(half, names[1])
        eta, lam = config.step_size, config.sparsity
        fn = stem + ("1.fn." if crate else "mlp.")
        if config.nonlinearity == "mlp":
            codes = F.gelu(z @ w[fn + "fc1.weight"].T + w[fn + "fc1.bias"])
            codes = hook(layer, "codes", codes)
            step = codes @ w[fn + "fc2.weight"].T + w[fn + "fc2.bias"]
            if config.layer_scale:
                step = step * w[stem + "ls2.gamma"]
            output = half + step
        elif config.nonlinearity == "ista_overcomplete":
            d = w[fn + "D"]
            first = (eta * (z @ d) - eta * lam).clamp(min=0)
            codes = (first - eta * ((first @ d.T - z) @ d) - eta * lam).clamp(min=0)
            output = half + hook(layer, "codes", codes) @ w[fn + "D1"].T
        else:
            d = w[fn + "weight"]
            codes = z + eta * ((z - z @ d.T) @ d)
            if config.nonlinearity == "ista":
                codes = (codes - eta * lam).clamp(min=0)
            else:
                codes = codes.sign() * (codes.abs() - eta * lam).clamp(min=0)
            output = hook(layer, "codes", codes)
        z = hook(layer, "output", output)
    return model.classify(z)
