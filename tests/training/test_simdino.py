"""The loss against its formula, written out; pairs of the same animal; runs of a few steps."""

import math

import pandas as pd
import pytest
import torch

from crate_analysis import build_model, load_model
from crate_analysis.datasets import load_dataset
from crate_analysis.training import simdino
from crate_analysis.training.dino import Dino, DinoRecipe
from crate_analysis.training.images import CachedImages
from crate_analysis.training.loop import Execution, Part
from crate_analysis.training.simdino import SimDino, SimDinoRecipe, alignment, expansion

TINY = {"dim": 16, "depth": 1, "heads": 2, "patch_size": 24}
SMALL = {"overrides": TINY, "n_train": 48, "n_val": 8, "batch_size": 24, "epochs": 2,
         "local_size": 24, "n_local_crops": 2, "hidden_dim": 12, "bottleneck_dim": 6,
         "knn_images": 24}  # fmt: skip


def recipe(kind=SimDinoRecipe, **changes):
    return kind("crate_micro_patch6_72.creatures", **{**SMALL, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def data(cache):
    return CachedImages("creatures", "train", 72, 48, 0, cache)


@pytest.fixture(scope="module")
def partners(cache):
    return CachedImages("creatures-restaged", "train", 72, 48, 0, cache)


def make_task(kind, plan, data, partners=None):
    torch.manual_seed(0)
    return kind(plan.build_backbone(), plan, data, data, partners)


def test_alignment_is_of_different_views():
    teacher = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    student = torch.tensor([[[1.0, 0.0]], [[0.6, 0.8]], [[0.8, 0.6]]])
    # pairs (teacher 0, student 1 and 2) and (teacher 1, student 0 and 2)
    assert alignment(teacher, student).item() == pytest.approx((0.6 + 0.8 + 0.0 + 0.6) / 4)
    assert alignment(teacher, student[:2]).item() == pytest.approx((0.6 + 0.0) / 2)


@pytest.mark.parametrize(("m", "p"), [(5, 3), (3, 5), (4, 4)])
def test_expansion_is_the_coding_rate_written_out(m, p):
    """By the eigenvalues of Z^T Z, which neither form of the code computes."""
    torch.manual_seed(0)
    z = torch.randn(m, p, dtype=torch.float64)
    singular = torch.linalg.svdvals(z)
    written = 0.5 * sum(math.log1p(p / (m * 0.5) * s**2) for s in singular.tolist())
    assert expansion(z.float(), 0.5).item() == pytest.approx(written, rel=1e-5)


def test_features_that_are_alike_have_the_rate_of_one_direction():
    z = torch.zeros(8, 4)
    z[:, 2] = 1.0
    assert expansion(z, 0.5).item() == pytest.approx(0.5 * math.log(1 + 4 / 0.5))
    spread = torch.eye(4).repeat(2, 1)
    assert expansion(spread, 0.5).item() == pytest.approx(0.5 * 4 * math.log(1 + 4 / (8 * 0.5) * 2))


def test_the_loss_follows_from_both_branches(data):
    plan = recipe()
    task = make_task(SimDino, plan, data)
    images, labels = data.batch(plan.batch_indices(0))
    loss, metrics = task(images, labels, Part(0, 0, 24))
    views = task.views(images, Part(0, 0, 24))
    with torch.no_grad():
        teacher, student = task.teacher(views.global_crops), task.student(*views)
    torch.testing.assert_close(teacher.norm(dim=-1), torch.ones(2, 24))
    pairs = [(t, v) for t in range(2) for v in range(4) if v != t]
    cosine = sum((teacher[t] * student[v]).sum(-1).mean() for t, v in pairs) / len(pairs)
    rate = 0.0
    for view in range(2):
        z = (student[view] + teacher[view]) / 2
        inner = torch.eye(6) + 6 / (24 * 0.5) * z.T @ z
        rate += 0.5 * torch.logdet(inner) / 2
    gamma = (6 + 24) / (6 * 24)
    assert plan.gamma == pytest.approx(gamma)
    assert loss.item() == pytest.approx((-cosine - gamma * rate).item(), rel=1e-4)
    assert metrics.tolist() == pytest.approx([cosine.item(), rate.item()], rel=1e-4)
    assert recipe(rate_weight=0.3).gamma == 0.3


def test_a_part_of_a_batch_is_refused(data):
    plan = recipe()
    task = make_task(SimDino, plan, data)
    images, labels = data.batch(list(range(12)))
    with pytest.raises(ValueError, match="--accumulate 1"):
        task(images, labels, Part(0, 0, 12))


@pytest.mark.parametrize("views", [{}, {"n_local_crops": 0}])
def test_only_the_student_is_trained(data, views):
    task = make_task(SimDino, recipe(**views), data)
    images, labels = data.batch(list(range(24)))
    task(images, labels, Part(0, 0, 24))[0].backward()
    assert all(w.grad is None for w in task.teacher.parameters())
    assert all(w.grad is not None for w in task.student.parameters())


@pytest.mark.parametrize(("kind", "plan"), [(SimDino, SimDinoRecipe), (Dino, DinoRecipe)])
def test_views_of_partners_are_of_the_other_image(data, partners, kind, plan):
    """The second global crop and every other local one, for both objectives."""
    chosen = recipe(plan, partners="creatures-restaged", n_local_crops=3)
    task = make_task(kind, chosen, data, partners)
    alone = make_task(kind, chosen, data)
    both = make_task(kind, chosen, data, data)
    part = Part(1, 8, 24)
    images, _ = data.batch(chosen.batch_indices(1)[8:24])
    with_partners, without = task.views(images, part), alone.views(images, part)
    for mine, same in zip(both.views(images, part), without, strict=True):
        assert torch.equal(mine, same)
    for crops, other in zip(with_partners, without, strict=True):
        for place in range(len(crops)):
            assert torch.equal(crops[place], other[place]) == (place % 2 == 0)


def test_pairs_have_the_animal_in_common_and_nothing_else():
    first = load_dataset("creatures", "dev", 72, limit=12)
    second = load_dataset("creatures-restaged", "dev", 72, limit=12)
    assert second.classes == first.classes
    for index in range(12):
        one, other = first[index], second[index]
        assert one.label == other.label
        assert not torch.equal(one.image, other.image)
        assert not torch.equal(first.background(index), second.background(index))
    shares = [s[k].masks[0].float().mean().item() for k in range(12) for s in (first, second)]
    assert pd.Series(shares).nunique() > 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0 must be more than 0"),
        ({"rate_weight": -1.0}, "rate_weight=-1.0 must be at least 0"),
        ({"rate_weight": math.nan}, "rate_weight=nan must be at least 0"),
        ({"global_scale": 0.0}, r"global_scale=0.0 must be in \(0, 1\]"),
        ({"grey": 1.5}, r"grey=1.5 must be in \[0, 1\]"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_raw_pixels_are_the_gate_whatever_the_network(data, cache):
    plan = recipe()
    torch.manual_seed(0)
    model = build_model(plan.arch, **TINY, num_classes=0)
    found = simdino.report(model, plan, data, cache)
    assert 0 <= found["gate"] <= 1 and 0 <= found["validation_accuracy"] <= 1
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    blank = simdino.report(model, plan, data, cache)
    assert blank["gate"] == found["gate"]


def test_a_run_with_partners_resumes_in_the_same_bits(cache, tmp_path, monkeypatch):
    plan = recipe(partners="creatures-restaged")

    def run_in(folder):
        return simdino.train(plan, folder, cache, Execution(save_every=3, snapshots=2))

    run_in(tmp_path / "whole")
    update = SimDino.after_update

    def interrupted(self, step):
        update(self, step)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SimDino, "after_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path / "parts")
    run_in(tmp_path / "parts")
    for name in ("model.safetensors", "log.csv"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "parts" / name).read_bytes() == whole
    log = pd.read_csv(tmp_path / "whole" / "log.csv")
    assert log.alignment.between(-1, 1).all() and (log.coding_rate > 0).all()
    assert load_model(tmp_path / "whole" / "model.safetensors").config.num_classes == 0
