"""Formulas on numbers worked out by hand; then runs of a few steps of tiny networks."""

import math
from itertools import pairwise

import pandas as pd
import pytest
import torch

from crate_analysis import build_model, load_model
from crate_analysis.training import dino
from crate_analysis.training.dino import Dino, DinoRecipe, ProjectionHead, distillation_loss
from crate_analysis.training.images import CachedImages
from crate_analysis.training.loop import Execution, Part

TINY = {"dim": 16, "depth": 1, "heads": 2, "patch_size": 24}


def recipe(arch="crate_micro_patch6_72.creatures", **changes):
    small = {"overrides": TINY, "n_train": 48, "n_val": 8, "batch_size": 24, "epochs": 2,
             "local_size": 24, "n_local_crops": 2, "out_dim": 8, "hidden_dim": 12,
             "bottleneck_dim": 6, "knn_images": 24, "teacher_temperature": 0.07,
             "first_teacher_temperature": 0.04}  # fmt: skip
    return DinoRecipe(arch, **{**small, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="module")
def data(cache):
    return CachedImages("creatures", "train", 72, 48, 0, cache)


def make_task(data, plan):
    torch.manual_seed(0)
    return Dino(build_model(plan.arch, **plan.overrides, num_classes=0), plan, data, data)


# --- formulas -----------------------------------------------------------------------------------


def test_the_loss_is_the_cross_entropy_between_different_views():
    teacher = torch.tensor([[[0.25, 0.75]], [[0.5, 0.5]]])
    student = torch.tensor([[[0.5, 0.5]], [[0.2, 0.8]], [[0.1, 0.9]]]).log()
    first = -(0.25 * math.log(0.2) + 0.75 * math.log(0.8))
    second = math.log(2)
    assert distillation_loss(teacher, student[:2]).item() == pytest.approx((first + second) / 2)
    first_local = -(0.25 * math.log(0.1) + 0.75 * math.log(0.9))
    second_local = -(0.5 * math.log(0.1) + 0.5 * math.log(0.9))
    assert distillation_loss(teacher, student).item() == pytest.approx(
        (first + first_local + second + second_local) / 4
    )
    views = distillation_loss(teacher.repeat(1, 3, 1), student.repeat(1, 3, 1))
    assert views.item() == pytest.approx((first + first_local + second + second_local) / 4)


def test_schedules_at_their_ends_and_half_way():
    plan = recipe(momentum=0.9, weight_decay=0.1, final_weight_decay=0.5, n_train=2400)
    assert plan.steps == 200
    assert [plan.momentum_at(s) for s in (0, 100, 200)] == pytest.approx([0.9, 0.95, 1.0])
    assert [plan.weight_decay_at(s) for s in (0, 100, 200)] == pytest.approx([0.1, 0.3, 0.5])
    assert plan.momentum_at(50) == pytest.approx(1 - 0.1 * (1 + math.sqrt(0.5)) / 2)


def test_the_teachers_temperature_rises_in_a_line_and_stays():
    plan = recipe(n_train=2400, teacher_warmup=0.5)
    temperatures = [plan.teacher_temperature_at(step) for step in (0, 50, 100, 199)]
    assert temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert recipe(teacher_warmup=0.0).teacher_temperature_at(0) == 0.07


def test_the_last_layer_has_no_gain():
    head = ProjectionHead(5, 7, 4, 9)
    features = 30 * torch.randn(3, 2, 5)
    before = head(features)
    assert before.shape == (3, 2, 9) and before.abs().max() <= 1 + 1e-6
    with torch.no_grad():
        head.last_layer.weight.mul_(torch.arange(1.0, 10)[:, None])
    torch.testing.assert_close(head(features), before)
    direction = head.mlp(features)
    with torch.no_grad():
        head.last_layer.weight[0] = 3 * direction[1, 1]
    assert head(features)[1, 1, 0].item() == pytest.approx(1)


def test_the_head_answers_in_full_precision_within_autocast():
    head = ProjectionHead(5, 7, 4, 9)
    with torch.autocast("cpu", torch.bfloat16):
        answers = head(torch.randn(64, 5))
    assert answers.dtype == torch.float32
    assert not torch.equal(answers, answers.bfloat16().float())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_local_crops": -1}, "n_local_crops=-1 must be at least 0"),
        ({"out_dim": 1}, "out_dim=1 must be at least 2"),
        ({"knn_images": 19}, "knn_images=19 must be at least 20"),
        ({"teacher_temperature": 0.0}, "teacher_temperature=0.0 must be more than 0"),
        ({"clip": 0.0}, "clip=0.0 must be more than 0"),
        ({"momentum": 1.1}, r"momentum=1.1 must be in \[0, 1\]"),
        ({"overrides": {"num_classes": 3}}, "leave num_classes out of --set"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_crops_that_the_patch_size_does_not_divide_are_refused(data):
    with pytest.raises(ValueError, match="local_size=36 is not a multiple of the patch_size=24"):
        make_task(data, recipe(local_size=36))


# --- one step -----------------------------------------------------------------------------------


def score(task, first=0, last=24, step=0):
    images, labels = task.data.batch(list(range(first, last)))
    return task(images, labels, Part(step, first, last))


@pytest.mark.parametrize(
    "arch", ["crate_micro_patch6_72.creatures", "vit_micro_patch6_72.creatures"]
)
def test_only_the_student_is_trained(data, arch):
    task = make_task(data, recipe(arch))
    loss, _ = score(task)
    loss.backward()
    assert all(w.grad is None for w in task.teacher.parameters())
    assert all(w.grad is not None for w in task.student.parameters())
    grouped = [w for group in task.parameter_groups() for w in group["params"]]
    assert {id(w) for w in grouped} == {id(w) for w in task.student.parameters()}
    assert len(grouped) == len(list(task.student.parameters()))


def test_biases_and_norms_do_not_decay(data):
    task = make_task(data, recipe())
    names = {id(w): name for name, w in task.student.named_parameters()}
    decayed, others = task.parameter_groups()
    assert others["weight_decay"] == 0.0 and "weight_decay" not in decayed
    assert all(
        names[id(w)].endswith("bias") or ".norm." in names[id(w)] or w.ndim == 1
        for w in others["params"]
    )
    assert not any(names[id(w)].endswith("bias") for w in decayed["params"])


def test_the_loss_follows_from_the_outputs_of_both_branches(data):
    """The step put together again from its definition, with a centre and step 0's temperature."""
    plan = recipe()
    task = make_task(data, plan)
    task.center.copy_(torch.linspace(-0.1, 0.1, 8))
    loss, metrics = score(task)
    images, _ = data.batch(list(range(24)))
    views = task._multi_crop(images, 0, lambda block: plan.augmentation_seed(0, block))
    with torch.no_grad():
        teacher = ((task.teacher(views.global_crops) - task.center) / 0.04).softmax(-1)
        student = (task.student(*views) / 0.1).log_softmax(-1)
    assert student.shape == (4, 24, 8)
    expected = sum(
        -(teacher[t] * student[v]).sum(-1).mean() for t in range(2) for v in range(4) if v != t
    )
    assert loss.item() == pytest.approx(expected.item() / 6, rel=1e-5)
    entropy = -(teacher * teacher.log()).sum(-1).mean().item()
    assert metrics.tolist() == pytest.approx([entropy, expected.item() / 6 - entropy], rel=1e-4)


def test_views_are_those_of_step_and_seed(data):
    plan = {"teacher_warmup": 0.0}  # so that steps differ by their views alone
    task = make_task(data, recipe(**plan))
    assert score(task, step=1)[0] == score(task, step=1)[0]
    assert score(task, step=0)[0] != score(task, step=1)[0]
    assert score(task)[0] != score(make_task(data, recipe(**plan, seed=1)))[0]


def test_teacher_and_centre_move_by_their_momenta(data):
    plan = recipe(momentum=0.9, center_momentum=0.8)
    task = make_task(data, plan)
    score(task, 0, 8)
    score(task, 8, 24)
    images, _ = data.batch(list(range(24)))
    views = task._multi_crop(images, 0, lambda block: plan.augmentation_seed(0, block))
    with torch.no_grad():
        mean = task.teacher(views.global_crops).mean((0, 1))
        for weight in task.teacher.parameters():
            weight.fill_(1.0)
        for weight in task.student.parameters():
            weight.fill_(3.0)
    task.after_update(0)
    for weight in task.teacher.parameters():
        torch.testing.assert_close(weight, torch.full_like(weight, 0.9 * 1 + 0.1 * 3))
    torch.testing.assert_close(task.center, 0.2 * mean)
    task.after_update(0)  # a step without images: the sums began again
    torch.testing.assert_close(task.center, 0.8 * 0.2 * mean)


def test_the_parts_of_a_batch_add_up_to_the_whole(data):
    def gradients(*bounds):
        task = make_task(data, recipe())
        total = torch.zeros(3)
        for first, last in pairwise(bounds):
            loss, metrics = score(task, first, last)
            share = (last - first) / 24
            (share * loss).backward()
            total += share * torch.cat([loss.detach()[None], metrics])
        task.after_update(0)
        return total, task.center, [w.grad for w in task.student.parameters()]

    whole = gradients(0, 24)
    for bounds in ((0, 8, 16, 24), (0, 5, 24)):
        torch.testing.assert_close(gradients(*bounds), whole, rtol=1e-4, atol=1e-6)


def test_the_last_layer_is_frozen_at_the_start_and_gradients_are_clipped(data):
    task = make_task(data, recipe(frozen=0.5, clip=0.01))  # of 4 steps
    frozen = []
    for step in range(4):
        task.zero_grad()
        score(task)[0].backward()
        task.before_update(step)
        frozen.append(task.student.head.last_layer.weight.grad is None)
        norms = [w.grad.norm() for w in task.student.parameters() if w.grad is not None]
        assert torch.stack(norms).norm().item() == pytest.approx(0.01, rel=1e-3)
    assert frozen == [True, True, False, False]


def test_collapse_shows(data):
    """One answer to all images: no divergence; uniform, or, where one output dominates, sharp."""
    task = make_task(data, recipe(student_temperature=0.1, first_teacher_temperature=0.1))
    for branch in (task.student, task.teacher):
        torch.nn.init.zeros_(branch.head.mlp[-1].weight)
        torch.nn.init.zeros_(branch.head.mlp[-1].bias)
    entropy, divergence = score(task)[1].tolist()
    assert entropy == pytest.approx(math.log(8)) and divergence == pytest.approx(0, abs=1e-5)
    for branch in (task.student, task.teacher):
        torch.nn.init.ones_(branch.head.mlp[-1].bias)
        with torch.no_grad():
            branch.head.last_layer.weight.fill_(-1.0)
            branch.head.last_layer.weight[3] = 1.0
    entropy, divergence = score(task)[1].tolist()
    assert entropy == pytest.approx(0, abs=1e-5) and divergence == pytest.approx(0, abs=1e-5)
    healthy = make_task(data, recipe())
    assert score(healthy)[1][1] > 0.01


# --- a run --------------------------------------------------------------------------------------


def run_in(folder, cache, save_every=3):
    return dino.train(recipe(), folder, cache, Execution(save_every=save_every, snapshots=2))


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_in(folder, cache)
    return folder


def test_the_log_and_the_teachers_backbone_are_written(finished):
    log = pd.read_csv(finished / "log.csv")
    assert log.step.tolist() == [2, 4]
    assert log.loss.tolist() == pytest.approx((log.teacher_entropy + log.divergence).tolist())
    assert log.teacher_entropy.between(0, math.log(8)).all()
    assert log.dev_knn_accuracy.between(0, 1).all() and (log.center_norm > 0).all()
    model = load_model(finished / "model.safetensors")
    assert model.config.num_classes == 0
    kept = torch.load(finished / "checkpoint.pt", weights_only=True)["task"]
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, kept[f"teacher.backbone.{name}"])
        assert not torch.equal(weight, kept[f"student.backbone.{name}"])


def test_an_interrupted_run_ends_in_the_same_bits(finished, cache, tmp_path, monkeypatch):
    folder = tmp_path / "interrupted"
    update = Dino.after_update

    def interrupted(self, step):
        update(self, step)
        if step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Dino, "after_update", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_in(folder, cache)
    assert not (folder / "model.safetensors").exists()
    run_in(folder, cache)
    for name in ("model.safetensors", "log.csv"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name


def test_rendering_the_pictures_changes_no_weights(finished, tmp_path):
    run_in(tmp_path / "run", tmp_path / "images")
    whole = (finished / "model.safetensors").read_bytes()
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == whole


def test_what_cannot_be_trained_leaves_nothing_behind(cache, tmp_path):
    with pytest.raises(ValueError, match="local_size=36 is not a multiple"):
        dino.train(recipe(local_size=36), tmp_path / "x", cache)
    assert not (tmp_path / "x").exists()
