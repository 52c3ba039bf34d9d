from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from crate_analysis.models import ModelConfig, UnrolledModel
from crate_analysis.models.registry import from_config

TINY = {
    "crate": ModelConfig("crate", 16, 4, 12, 3, 3, 5),
    "crate-soft": ModelConfig("crate", 16, 4, 12, 3, 3, 5, nonlinearity="ista_soft"),
    "crate-mlp": ModelConfig("crate", 16, 4, 12, 3, 3, 5, nonlinearity="mlp"),
    "crate-mhsa": ModelConfig("crate", 16, 4, 12, 3, 3, 5, attention="mhsa"),
    "crate-one-head": ModelConfig("crate", 16, 4, 12, 3, 1, 5),
    "crate-demo": ModelConfig("crate", 16, 4, 12, 3, 3, 5, projector_dim=12),
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
