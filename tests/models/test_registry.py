"""Configs and named architectures."""

from __future__ import annotations

import json

import pytest
import torch

from crate_analysis.models import ARCHS, ModelConfig, build_model
from crate_analysis.models.registry import from_config


def parameters(arch: str, **overrides) -> int:
    with torch.device("meta"):
        model = build_model(arch, **overrides)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("arch", "overrides", "millions"),
    [
        # Yu et al. 2024
        ("crate_tiny_patch8_224.cpal24", {}, 5.74),
        ("crate_small_patch8_224.cpal24", {}, 14.12),
        ("crate_base_patch8_224.cpal24", {}, 38.83),
        ("vit_base_patch8_224", {"num_classes": 21843}, 102.61),
        ("vit_tiny_patch8_224", {"num_classes": 21842}, 9.74),
        # Yu et al. 2023, Table 1
        ("crate_tiny_patch16_224.neurips23", {}, 6.09),
        ("crate_small_patch16_224.neurips23", {}, 13.12),
        ("crate_base_patch16_224.neurips23", {}, 22.80),
        ("crate_large_patch16_224.neurips23", {}, 77.64),
    ],
)
def test_parameter_counts_are_the_papers(arch, overrides, millions):
    assert round(parameters(arch, **overrides) / 1e6, 2) == millions


def test_a_crate_layer_has_the_weights_of_its_formula():
    # U and the output map d^2 each, its bias d, D d^2, two LayerNorms 2 d each
    for depth, dim in ((1, 12), (4, 24)):
        config = ModelConfig("crate", 16, 4, dim, depth, 3, 5)
        layers = from_config(config).transformer.parameters()
        per_layer = 3 * dim**2 + 5 * dim
        assert sum(weight.numel() for weight in layers) == depth * per_layer


def test_every_architecture_can_be_built():
    assert all(parameters(arch) > 0 for arch in ARCHS)


@pytest.mark.parametrize("arch", sorted(ARCHS))
def test_names_say_what_they_name(arch):
    config = ARCHS[arch]
    family, _, patch, size = arch.split(".")[0].split("_")
    assert (family, patch, size) == (
        config.family,
        f"patch{config.patch_size}",
        str(config.image_size),
    )


def test_overrides_reach_the_model():
    model = build_model("vit_tiny_patch16_224", depth=2, num_classes=3, image_size=32)
    assert model.config.depth == len(model.layers) == 2
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_the_same_seed_gives_the_same_weights():
    def first(seed):
        torch.manual_seed(seed)
        return next(build_model("crate_tiny_patch8_224.cpal24", depth=1).parameters())

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


def test_a_config_survives_json():
    for config in ARCHS.values():
        assert ModelConfig(**json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("arch", "overrides", "message"),
    [
        ("crate_smal_patch8_224.cpal24", {}, "did you mean 'crate_small_patch8_224.cpal24'"),
        ("resnet", {}, "no architecture 'resnet'; known: crate_tiny"),
        (
            "vit_tiny_patch8_224",
            {"n_classes": 3},
            "'n_classes'; did you mean 'num_classes'",
        ),
        ("vit_tiny_patch8_224", {"zzz": 3}, "no field 'zzz'; fields: family, "),
        ("vit_tiny_patch8_224", {"heads": 5}, "dim=192 cannot be shared by heads=5"),
        ("vit_tiny_patch8_224", {"heads": 0}, "heads=0 must be a whole number of at least 1"),
        ("vit_tiny_patch8_224", {"num_classes": -1}, "num_classes=-1 must be"),
        ("vit_tiny_patch8_224", {"image_size": 100}, "100 is not a multiple of patch_size=8"),
        ("vit_tiny_patch8_224", {"nonlinearity": "ista"}, "a vit has attention='mhsa'"),
        ("vit_tiny_patch8_224", {"mlp_ratio": 0.0}, "mlp_ratio=0.0 leaves an MLP no hidden"),
        ("vit_tiny_patch8_224", {"heads": "3"}, "heads='3' must be a whole number"),
        ("vit_tiny_patch8_224", {"pixel_mean": (0.5,)}, "one number for each of R, G, B"),
        ("vit_tiny_patch8_224", {"pixel_std": (1, 0, 1)}, "one number for each of R, G, B"),
        ("crate_tiny_patch8_224.cpal24", {"attention": "msa"}, "'msa' is not one of mssa, mhsa"),
    ],
)
def test_wrong_names_and_values_are_named(unchecked, arch, overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        build_model(arch, **overrides)
    assert "\n" not in str(caught.value)
