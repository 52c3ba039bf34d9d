import json
import math

import pytest
import torch

from crate_analysis.training.recipe import SupervisedRecipe, read_recipe


def recipe(**changes):
    sizes = {"n_train": 100, "batch_size": 10} | changes
    return SupervisedRecipe(**{"arch": "crate_micro_patch6_72.creatures", **sizes})


def test_learning_rate_rises_in_a_line_and_falls_in_a_cosine():
    plan = recipe(epochs=10, learning_rate=1.0, warmup=0.1)
    rates = [plan.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (s + 1) for s in range(10)])
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx((1 + math.cos(math.pi * 89 / 90)) / 2)


def test_every_epoch_sees_every_picture_once_in_another_order():
    plan = recipe(epochs=2)
    batches = [plan.batch_indices(step) for step in range(20)]
    epochs = [[i for batch in part for i in batch] for part in (batches[:10], batches[10:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(100))
    assert epochs[0] != epochs[1]
    assert recipe(seed=1).batch_indices(0) != plan.batch_indices(0)


def test_about_half_the_pictures_are_flipped_and_the_same_ones_again():
    images = torch.arange(2.0).expand(400, 3, 1, 2)
    plan = recipe(n_train=400, batch_size=400)
    flipped = plan.flip_at_random(images, step=3)
    share = (flipped[:, 0, 0, 0] == 1).float().mean().item()
    assert 0.4 < share < 0.6
    assert torch.equal(flipped, plan.flip_at_random(images, step=3))
    assert not torch.equal(flipped, plan.flip_at_random(images, step=4))
    assert torch.equal(images, recipe(flip=False).flip_at_random(images, step=3))


def test_a_part_of_a_batch_is_flipped_as_in_the_whole():
    images = torch.arange(10 * 3 * 4.0).reshape(10, 3, 1, 4)
    whole = recipe().flip_at_random(images, step=3)
    parts = [recipe().flip_at_random(images[k : k + 5], step=3, first=k) for k in (0, 5)]
    assert torch.equal(torch.cat(parts), whole)


def test_a_record_gives_the_recipe_back(tmp_path):
    plan = recipe(optimizer="lion", seed=3, overrides={"depth": 2})
    kinds = {"supervised": SupervisedRecipe}
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(plan.to_dict()))
    assert read_recipe(path, kinds) == plan
    path.write_text(json.dumps(plan.to_dict() | {"momentum": 0.9}))
    with pytest.raises(ValueError, match=r"recipe.json has settings of another version: momentum"):
        read_recipe(path, kinds)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "sgd"}, "optimizer='sgd' is not one of"),
        ({"epochs": 0}, "epochs=0 must be at least 1"),
        ({"warmup": 1.0}, "warmup=1.0 must be a share"),
        ({"arch": ""}, "no architecture is named: pass --arch"),
        ({"learning_rate": 0.0}, "learning_rate=0.0 must be more than 0"),
    ],
)
def test_what_cannot_be_run_is_refused(changes, message, unchecked):
    with pytest.raises(ValueError, match=message):
        recipe(**changes)


def test_batches_larger_than_the_data_are_refused():
    with pytest.raises(ValueError, match="batch_size=64 is more than the n_train=32 images"):
        SupervisedRecipe("crate_micro_patch6_72.creatures", n_train=32, batch_size=64)
