"""Controls of what accuracy rests on: shuffled patches, and neighbours among raw pixels."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from crate_analysis.datasets import Sample, Samples, as_samples
from crate_analysis.models import Edit, UnrolledModel
from crate_analysis.walk import READING, Reading, check_model, layer_states

Where = Literal["image", "objects"]
UNCHANGED = "unchanged"
CELLS = 18
"""Rows and columns that raw pixels are averaged to, by default."""


def shuffle_patches(
    sample: Sample, patch_size: int, where: Where = "image", seed: int = 0
) -> Sample:
    """The sample with its patches in another order, as pixels and as truth.

    A network that is as right with all patches shuffled (`where` = `image`) goes by what patches
    show, and by no arrangement of them; with those of objects shuffled among themselves
    (`objects`: patches of which whole objects cover half or more) it goes by no object's shape or
    order of parts, while place, outline and background stay. Masks, void and crowds move along. The
    order depends on `seed` and the sample's path, not on the place in a batch.

    Raises ValueError for another `where`, a patch size that does not divide the image, and a sample
    without masks whose objects are asked for.

    >>> from crate_analysis import load_dataset
    >>> sample = load_dataset("creatures", "val", 72)[0]
    >>> shuffled = shuffle_patches(sample, 6)
    >>> bool((shuffled.image != sample.image).any()), shuffled.image.sum() == sample.image.sum()
    (True, tensor(True))
    """
    if where not in get_args(Where):
        raise ValueError(f"where={where!r} is not one of {', '.join(get_args(Where))}")
    height, width = sample.image.shape[1:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"{sample.path} is {height} x {width} pixels, which patch_size={patch_size} does not "
            "divide; load the data set with another image_size"
        )
    count = (height // patch_size) * (width // patch_size)
    moved = np.arange(count)
    if where == "objects":
        wholes = [place for place, whole in enumerate(sample.part_of) if whole is None]
        if not wholes:
            raise ValueError(f"{sample.path} has no masks, so no objects to shuffle; take 'image'")
        share = _patches(sample.masks[wholes].any(0, keepdim=True), patch_size).float().mean(-1)
        moved = np.flatnonzero(share[0].numpy() >= 0.5)
    rng = np.random.default_rng((seed, zlib.crc32(sample.path.encode())))
    order = np.arange(count)
    order[moved] = rng.permutation(moved)

    def turned(planes: Tensor) -> Tensor:
        shuffled = _patches(planes, patch_size)[:, order]
        rows = shuffled.unflatten(1, (-1, width // patch_size)).unflatten(-1, (patch_size, -1))
        return rows.transpose(2, 3).flatten(3).flatten(1, 2)

    return replace(
        sample,
        image=turned(sample.image),
        masks=turned(sample.masks),
        void=turned(sample.void[None])[0],
        crowds=turned(sample.crowds),
    )


def mirror(sample: Sample) -> Sample:
    """The sample with left and right exchanged, as pixels and as truth.

    A map that follows the image follows its mirror image too, mirrored: a test without a truth.

    >>> from crate_analysis import load_dataset
    >>> sample = load_dataset("creatures", "val", 72)[0]
    >>> bool((mirror(mirror(sample)).image == sample.image).all())
    True
    """
    planes = ("image", "masks", "void", "crowds")
    return replace(sample, **{name: getattr(sample, name).flip(-1) for name in planes})


def accuracy_under(
    model: UnrolledModel,
    data: Samples,
    changes: Mapping[str, Callable[[Sample], Sample]],
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """Whether a classifier names images rightly as they are, and after each of some changes.

    Parameters
    ----------
    model, data, reading, edits : as `walk` takes them; images with a label.
    changes : name -> function of a sample giving a sample, such as
        ``{"patches shuffled": lambda sample: shuffle_patches(sample, 6)}``.

    Returns a row for each image and change, the first of which is `unchanged`: model, change,
    image, label, predicted, hit (0 or 1). The difference of two changes' hits, image by image, is
    what accuracy rests on (`paired_difference`).

    Raises what `walk` raises, and ValueError for a model without a classifier, and images without a
    label or with one that the classifier does not know.

    >>> from crate_analysis import load_model
    >>> model = load_model("crate-creatures")
    >>> shuffled = {"shuffled": lambda sample: shuffle_patches(sample, 6)}
    >>> accuracy_under(model, "creatures", shuffled, Reading(limit=2)).change.tolist()
    ['unchanged', 'unchanged', 'shuffled', 'shuffled']
    """
    classes = check_model(model).config.num_classes
    if classes < 1:
        raise ValueError(f"{model.name} has no classifier; read its features' neighbours instead")
    if UNCHANGED in changes:
        raise ValueError(f"a change may not be called {UNCHANGED!r}: that is the first one's name")
    every = {UNCHANGED: lambda sample: sample, **changes}
    last = [len(model.layers) - 1]
    frames = []
    samples = as_samples(data, image_size=model.config.image_size)
    for indices, batch in reading.batches(samples, model.name):
        for sample in batch:
            if sample.label is None or not 0 <= sample.label < classes:
                raise ValueError(
                    f"{sample.path} has the label {sample.label}, and the classifier of "
                    f"{model.name} {classes} classes; accuracy needs images with one of them"
                )
        labels = np.array([sample.label for sample in batch])
        for name, change in every.items():
            predicted = _predicted(model, [change(sample) for sample in batch], last, edits)
            columns = {"image": indices, "label": labels, "predicted": predicted}
            hit = (predicted == labels).astype(float)
            frames.append(pd.DataFrame({"change": name, **columns, "hit": hit}))
    frame = pd.concat(frames, ignore_index=True)
    order = frame["change"].map(list(every).index)
    frame = frame.iloc[np.lexsort((frame["image"], order))].reset_index(drop=True)
    frame.insert(0, "model", model.name)
    return frame


def pixel_features(images: UInt8[Tensor, "b 3 H W"], cells: int = CELLS) -> Float[Tensor, "b d"]:
    """Raw pixels as features: images averaged to `cells` x `cells`, -1/2 to 1/2, d = 3 cells^2.

    What a vote of neighbours among them tells of the classes is the level that a network's features
    have to pass (`training.knn.knn_accuracy`).

    >>> pixel_features(torch.zeros(2, 3, 36, 36, dtype=torch.uint8)).shape
    torch.Size([2, 972])
    """
    return F.adaptive_avg_pool2d(images.float() / 255 - 0.5, cells).flatten(1)


@torch.inference_mode()
def _predicted(
    model: UnrolledModel, samples: Sequence[Sample], layers: list[int], edits: Sequence[Edit]
) -> np.ndarray:
    _, states = layer_states(model, samples, layers, edits)
    [logits] = [model.classify(state.output) for state in states]
    return logits.argmax(-1).cpu().numpy()


def _patches(planes: Tensor, size: int) -> Tensor:
    """(k,H,W) -> (k, patches, size^2), row by row."""
    cells = planes.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return cells.transpose(2, 3).flatten(3).flatten(1, 2)
