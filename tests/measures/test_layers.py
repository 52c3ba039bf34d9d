import numpy as np
import pytest
import torch

from crate_analysis import build_model, load_dataset
from crate_analysis.datasets import SampleDataset
from crate_analysis.measures import MEASURES, coding_rate, measure_layers, nonzero_fraction
from crate_analysis.walk import Reading


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model("crate_micro_patch6_72.creatures", dim=32, depth=3, patch_size=12).eval()


@pytest.fixture(scope="module")
def pictures():
    return load_dataset("creatures", "val", image_size=72, limit=7)


def test_the_frame_is_tidy_and_holds_what_the_states_give(model, pictures):
    frame = measure_layers(model, pictures, reading=Reading(batch_size=3))
    assert list(frame.columns) == ["model", "layer", "image", "measure", "value"]
    assert len(frame) == 7 * 3 * len(MEASURES)
    assert set(frame.model) == {"crate_micro_patch6_72.creatures"}

    image = model.normalize(pictures[5].image.unsqueeze(0))
    for state in model.unroll(image):
        here = frame[(frame.image == 5) & (frame.layer == state.index)].set_index("measure").value
        assert here["coding_rate"] == pytest.approx(coding_rate(state.projections).item(), rel=1e-4)
        assert here["nonzero_fraction"] == pytest.approx(nonzero_fraction(state.output).item())


def test_batches_do_not_change_the_values(model, pictures):
    whole = measure_layers(model, pictures, reading=Reading(batch_size=7))
    single = measure_layers(model, pictures, reading=Reading(batch_size=1))
    np.testing.assert_allclose(whole.value, single.value, rtol=1e-4)
    assert whole.drop(columns="value").equals(single.drop(columns="value"))


def test_limit_takes_the_first_pictures(model, pictures):
    frame = measure_layers(model, pictures, reading=Reading(batch_size=4, limit=5))
    assert sorted(frame.image.unique()) == [0, 1, 2, 3, 4]


def test_own_measures(model, pictures):
    norms = {"norm": lambda state: state.tokens.norm(dim=(1, 2))}
    frame = measure_layers(model, pictures, norms, reading=Reading(limit=2))
    assert set(frame.measure) == {"norm"} and (frame.value > 0).all()


def test_a_measure_of_the_wrong_shape_is_named(model, pictures):
    with pytest.raises(ValueError, match=r"measure 'mean' gave shape \(\) for 2 images"):
        measure_layers(
            model, pictures, {"mean": lambda s: s.tokens.mean()}, reading=Reading(limit=2)
        )


def test_an_empty_data_set_is_refused(model):
    class Empty(SampleDataset):
        def __len__(self):
            return 0

        def __getitem__(self, index):
            raise IndexError(index)

    with pytest.raises(ValueError, match="data set is empty"):
        measure_layers(model, Empty())


def test_pictures_of_two_sizes_are_named(model, pictures):
    class Mixed(SampleDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return (pictures, load_dataset("creatures", "val", 96, limit=2))[index][index]

    with pytest.raises(ValueError, match=r"72 x 72 pixels and .* is 96 x 96"):
        measure_layers(model, Mixed(), reading=Reading(batch_size=2))
