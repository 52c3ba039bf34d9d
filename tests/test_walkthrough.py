"""The drawing holds the arrays it was given; how it looks is for eyes."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from crate_analysis.plotting import heat
from crate_analysis.walkthrough import LABELS, walkthrough, walkthrough_height

RNG = np.random.default_rng(0)
GRID = (2, 3)
ARRAYS = {
    "picture": RNG.integers(0, 255, (20, 30, 3), dtype=np.uint8),
    "tokens": RNG.standard_normal((7, 5)),
    "projections": RNG.standard_normal((2, 7, 4)),
    "attention": RNG.dirichlet(np.ones(7), 2),
    "masks": RNG.random((2, *GRID)) > 0.5,
}
SAID = {name: f"what {name} is" for name in LABELS}


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_it_holds_what_it_was_given(ax):
    assert walkthrough(**ARRAYS, labels=SAID, ax=ax) is ax
    shown = [np.asarray(image.get_array()) for image in ax.images]
    assert np.array_equal(shown[0], ARRAYS["picture"])
    assert np.array_equal(shown[2], ARRAYS["tokens"][:1].T)
    assert np.array_equal(shown[3], ARRAYS["tokens"][1:].T)
    assert np.array_equal(shown[5], ARRAYS["projections"][0, 1:].T)
    expected = heat(ARRAYS["attention"][1, 1:].reshape(GRID), (20, 30))
    assert np.array_equal(shown[-2], expected)
    kept = (shown[-1][::10, ::10] != shown[-1][::10, ::10].mean(-1, keepdims=True)).any(-1)
    assert np.array_equal(kept, ARRAYS["masks"][1])
    heights = [-bar.get_height() for bar in ax.containers[3]]  # the second head's patches
    np.testing.assert_allclose(
        heights / heights[0], ARRAYS["attention"][1, 1:] / ARRAYS["attention"][1, 1]
    )
    texts = {text.get_text() for text in ax.texts}
    assert texts >= {*SAID.values(), "head 1", "head 2"}


def test_its_shape_fits_the_heads(ax):
    walkthrough(**ARRAYS, labels=SAID, ax=ax)
    bottom = max(image.get_extent()[2] for image in ax.images)
    assert bottom < ax.get_ylim()[0] <= walkthrough_height(2)


def test_arrays_of_different_pictures_are_refused(ax):
    with pytest.raises(ValueError, match=r"are of \(6, 7, 7, 7\) tokens: take them from one"):
        walkthrough(**{**ARRAYS, "tokens": ARRAYS["tokens"][1:]}, labels=SAID, ax=ax)
    with pytest.raises(ValueError, match="labels lacks map"):
        walkthrough(**ARRAYS, labels={k: v for k, v in SAID.items() if k != "map"}, ax=ax)
