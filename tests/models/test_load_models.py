"""Several models under names that cannot be confused."""

import pytest
import torch

from crate_analysis import build_model
from crate_analysis.models import load_models, save_model


@pytest.fixture
def files(tmp_path):
    paths = []
    for index, folder in enumerate(("a", "b")):
        torch.manual_seed(index)
        model = build_model("crate_micro_patch6_72.creatures", dim=16, depth=1, heads=2)
        (tmp_path / folder).mkdir()
        paths.append(str(tmp_path / folder / "last.safetensors"))
        save_model(model, paths[-1])
    return paths


def test_models_are_called_by_their_labels(files):
    models = load_models([files[0], f"mine={files[1]}"])
    assert list(models) == ["a", "mine"] and models["mine"].name == "mine"
    assert not torch.equal(*(model.cls_token for model in models.values()))


def test_two_of_one_label_are_refused_before_any_is_loaded():
    with pytest.raises(ValueError, match=r"'x/a\.pth' and 'y/a\.pth' would both be called 'a'"):
        load_models(["x/a.pth", "y/a.pth"])
    with pytest.raises(ValueError, match="no model is named"):
        load_models([])


def test_an_untrained_model_is_called_by_its_architecture():
    assert build_model("vit_tiny_patch16_224", depth=1).name == "vit_tiny_patch16_224"
