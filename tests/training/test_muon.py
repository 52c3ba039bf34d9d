"""Muon for the matrices of layers and AdamW for the rest, as one optimiser."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from crate_analysis import build_model
from crate_analysis.training.__main__ import main
from crate_analysis.training.loop import layer_matrices
from crate_analysis.training.objectives import OBJECTIVES
from crate_analysis.training.recipe import MuonWithAdamW, SupervisedRecipe
from crate_analysis.training.supervised import Classification

ARCH = "crate_micro_patch6_72.creatures"


def made(matrix, vector, **settings):
    groups = [{"params": [matrix, vector]}]
    return MuonWithAdamW(groups, {id(matrix)}, **{"lr": 0.1, "weight_decay": 0.0, **settings})


def test_a_step_of_a_matrix_has_singular_values_alike_and_that_of_a_vector_is_adams():
    torch.manual_seed(0)
    matrix, vector = nn.Parameter(torch.zeros(8, 32)), nn.Parameter(torch.zeros(5))
    matrix.grad = torch.randn(8, 8) @ torch.diag(10.0 ** -torch.arange(8.0)) @ torch.randn(8, 32)
    vector.grad = torch.tensor([1.0, -1.0, 10.0, -0.1, 5.0])
    optimizer = made(matrix, vector)
    optimizer.step()
    # Newton-Schulz brings the larger singular values near 1; times 0.2 sqrt(32) lr (Liu et al.)
    values = torch.linalg.svdvals(matrix.detach()) / (0.1 * 0.2 * 32**0.5)
    assert 0.4 < values[3].item() <= values[0].item() < 1.3
    assert torch.linalg.svdvals(matrix.grad)[3] < 0.01 * torch.linalg.svdvals(matrix.grad)[0]
    # Adam's first step is the rate times the sign
    assert vector.detach() == pytest.approx(-0.1 * vector.grad.sign(), abs=1e-5)


def test_rates_set_from_outside_reach_both_parts():
    matrix, vector = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer = made(matrix, vector)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    matrix.grad, vector.grad = torch.randn(4, 4), torch.randn(4)
    optimizer.step()
    assert torch.equal(matrix.detach(), torch.ones(4, 4))
    assert torch.equal(vector.detach(), torch.ones(4))
    optimizer.zero_grad()
    assert matrix.grad is None and vector.grad is None


def test_state_goes_through_a_file_and_rates_still_reach_both_parts():
    def stepped(optimizer, matrix, vector, seed):
        torch.manual_seed(seed)
        matrix.grad, vector.grad = torch.randn(4, 4), torch.randn(4)
        optimizer.step()

    first = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer = made(*first)
    stepped(optimizer, *first, 0)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    second = tuple(nn.Parameter(weight.detach().clone()) for weight in first)
    resumed = made(*second, lr=5.0)
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for one in (optimizer, resumed):
        for group in one.param_groups:
            group["lr"] = 0.01
    stepped(optimizer, *first, 1)
    stepped(resumed, *second, 1)
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_group_keeps_its_own_weight_decay(decay):
    matrix, vector = nn.Parameter(torch.ones(4, 4)), nn.Parameter(torch.ones(4))
    optimizer = MuonWithAdamW(
        [{"params": [matrix]}, {"params": [vector], "weight_decay": decay}],
        {id(matrix)}, lr=0.1, weight_decay=0.5,
    )  # fmt: skip
    matrix.grad, vector.grad = torch.zeros(4, 4), torch.zeros(4)
    optimizer.step()
    assert matrix.detach() == pytest.approx(torch.full((4, 4), 0.95).numpy())
    assert vector.detach() == pytest.approx(torch.full((4,), 1 - 0.1 * decay).numpy())


@pytest.mark.parametrize(
    ("arch", "overrides", "matrices"),
    [
        (ARCH, {}, 3),  # projections, the map out, the dictionary
        (ARCH, {"attention": "mhsa", "nonlinearity": "mlp"}, 4),
        (ARCH, {"nonlinearity": "ista_overcomplete"}, 4),
        ("vit_micro_patch6_72.creatures", {}, 4),
    ],
)
def test_the_matrices_of_all_designs_are_found(arch, overrides, matrices):
    model = build_model(arch, dim=8, heads=2, depth=3, **overrides)
    found = layer_matrices(model)
    assert len(found) == 3 * matrices
    inside = {id(weight) for weight in model.parameters()}
    assert all(id(weight) in inside for weight in found)


def test_a_recipe_changes_every_weight_once():
    model = build_model(ARCH, dim=8, heads=2, depth=2, patch_size=36)
    recipe = SupervisedRecipe(ARCH, optimizer="muon")
    groups = [{"params": list(model.parameters())}]
    optimizer = recipe.make_optimizer(groups, layer_matrices(model))
    grouped = [id(weight) for group in optimizer.param_groups for weight in group["params"]]
    assert sorted(grouped) == sorted(id(weight) for weight in model.parameters())


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_muon_changes_the_matrices_that_are_trained_under_every_objective(
    objective, tmp_path, monkeypatch
):
    """A teacher's matrices are not: Muon found none of the student's once, and said nothing."""
    changed = []
    step = torch.optim.Muon.step

    def noted(self, closure=None):
        changed.append(sum(len(group["params"]) for group in self.param_groups))
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Muon, "step", noted)
    main([OBJECTIVES[objective].command, str(tmp_path / "run"), "--arch", ARCH,
          "--set", "dim=8", "depth=2", "heads=2", "patch_size=36",
          "--n-train", "32", "--n-val", "8", "--batch-size", "16", "--threads", "1",
          "--optimizer", "muon", "--epochs", "1", "--cache", str(tmp_path / "cache"),
          *([] if objective == "supervised" else ["--knn-images", "32"])])  # fmt: skip
    assert changed == [2 * 3, 2 * 3]


def test_muon_without_a_matrix_is_refused():
    with pytest.raises(ValueError, match="choose adamw"):
        MuonWithAdamW([{"params": [nn.Parameter(torch.ones(3))]}], set(), lr=0.1)


def test_a_stopped_run_ends_in_the_same_bits(tmp_path, monkeypatch):
    options = ["--arch", ARCH, "--set", "dim=8", "depth=1", "heads=1", "patch_size=36",
               "--n-train", "32", "--n-val", "8", "--batch-size", "8", "--threads", "1",
               "--save-every", "1", "--optimizer", "muon", "--epochs", "2",
               "--cache", str(tmp_path / "cache")]  # fmt: skip
    main(["train", str(tmp_path / "whole"), *options])
    update = Classification.after_update

    def stop(self, step):
        update(self, step)
        if step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "after_update", stop)
        with pytest.raises(KeyboardInterrupt):
            main(["train", str(tmp_path / "run"), *options])
    main(["train", str(tmp_path / "run"), *options])
    for name in ("model.safetensors", "log.csv"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
