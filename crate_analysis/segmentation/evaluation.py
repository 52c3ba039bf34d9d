"""Every head of every layer against every true mask of a data set, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.datasets import Sample, Samples, batches, stack_images
from crate_analysis.datasets.batches import AbsentError
from crate_analysis.models import UnrolledModel
from crate_analysis.segmentation.baselines import centre_attention, patch_ceiling, random_attention
from crate_analysis.segmentation.masks import Rule, attention_mask
from crate_analysis.segmentation.truth import NO_MASKS, PICTURE, Truth

COLUMNS = ["model", "layer", "rule", "image", "mask", "head", "iou"]
SCORES = ["model", "layer", "image", "within", "mask", "head", "share", "iou", "average_precision"]


def attention_iou(
    model: UnrolledModel,
    dataset: Samples,
    keep: float = 0.6,
    rules: Sequence[Rule] = ("mass", "entries"),
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool = True,
    workers: int = 0,
) -> pd.DataFrame:
    """IoU of each head's `[CLS]` attention mask with each true mask, for every layer and picture.

    Parameters
    ----------
    dataset : pictures of one size, which the patch size divides, with masks.
    keep, rules : how a map becomes a mask, see `attention_mask`.
    workers : processes that read pictures, 0 for this one; see `batches`.

    Returns a tidy frame: model, layer (from 0), rule, image (index in the data set), mask (its
    name), head (from 0), iou in [0, 1]. Best-head IoU is the maximum over `head`; the paper's mIoU
    is its mean over the masks of an image, then over images (Yu et al. 2024, Sec. 3.1).

    Raises ValueError for an empty data set and for one without masks.
    """
    parts: list[pd.DataFrame] = []
    for truth, layer, maps in _layers(model, dataset, batch_size, limit, progress, workers):
        for rule in rules:
            found = truth.compare(attention_mask(maps, keep, rule))
            parts.append(found.assign(model=model.name, layer=layer, rule=rule))
    return _frame(parts, COLUMNS)


def baseline_iou(
    dataset: Samples,
    patch_size: int,
    heads: int,
    keep: float = 0.6,
    rules: Sequence[Rule] = ("mass", "entries"),
    batch_size: int = 32,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 0,
) -> pd.DataFrame:
    """What maps that know nothing of the picture score, and the most that patches allow.

    The same frame as `attention_iou`'s, with layer -1 and for model: `random maps` (as many as
    there are heads, so that the best of them is as lucky as the best head), `centre prior` (one
    Gaussian in the middle), and `patch ceiling` (the truth itself on the patch grid, no rule).
    """
    generator = torch.Generator().manual_seed(seed)
    parts: list[pd.DataFrame] = []
    for indices, samples in batches(dataset, batch_size, limit, workers=workers):
        grid = patch_grid(samples, patch_size)
        truth = Truth(samples, indices, grid)
        noise = random_attention((len(samples), heads, *grid), generator)
        centre = centre_attention(*grid).expand(len(samples), 1, *grid)
        ceiling = truth.compare(patch_ceiling(truth.masks, patch_size, truth.ignored))
        ceiling = ceiling[ceiling["head"] == ceiling["plane"]].assign(model="patch ceiling")
        for rule in rules:
            for name, maps in (("random maps", noise), ("centre prior", centre)):
                found = truth.compare(attention_mask(maps, keep, rule))
                parts.append(found.assign(model=name, rule=rule))
            parts.append(ceiling.assign(rule=rule))
    return _frame([part.assign(layer=-1) for part in parts], COLUMNS)


def head_scores(
    model: UnrolledModel,
    dataset: Samples,
    keep: float = 0.6,
    rule: Rule = "mass",
    within: Sequence[str] = (),
    batch_size: int = 32,
    limit: int | None = None,
    progress: bool = True,
    workers: int = 0,
) -> pd.DataFrame:
    """How well each head's `[CLS]` attention finds each true mask, for every layer and picture.

    Parameters
    ----------
    dataset : pictures of one size, which the patch size divides, with masks.
    keep, rule : how a map becomes the mask that has the IoU, see `attention_mask`. Average
        precision takes the map as it is.
    within : names of masks, such as `animal`, within which all is scored once more. Pixels
        outside do not count there, so that to find the animal is no merit in finding its legs.
    workers : processes that read pictures, 0 for this one; see `batches`.

    Returns a tidy frame: model, layer (from 0), image (index in the data set), within (`picture`
    for all pixels, or a name of `within`), mask (its name), head (from 0), share (of the pixels
    that count, in the mask: the average precision of a flat map), iou and average_precision, all
    three in [0, 1].

    Raises ValueError for an empty data set, for one without masks, and for a name in `within` that
    no mask has.
    """
    parts: list[pd.DataFrame] = []
    for truth, layer, maps in _layers(model, dataset, batch_size, limit, progress, workers, within):
        found = truth.score(maps, attention_mask(maps, keep, rule))
        parts.append(found.assign(model=model.name, layer=layer))
    return _frame(parts, SCORES, within)


def baseline_scores(
    dataset: Samples,
    patch_size: int,
    heads: int,
    priors: Mapping[str, Float[Tensor, "gh gw"]],
    keep: float = 0.6,
    rule: Rule = "mass",
    within: Sequence[str] = (),
    batch_size: int = 32,
    limit: int | None = None,
    seed: int = 0,
    workers: int = 0,
) -> pd.DataFrame:
    """What maps that know nothing of the picture score, and about the most that patches allow.

    The same frame as `head_scores`', with layer -1 and for model: `random maps` (`heads` of them),
    `location prior` (for each mask its own map of `priors`, the same for every picture, see
    `location_prior`), and `patch ceiling` (how much of what counts of each patch is in the mask;
    for the IoU, where that is at least half).

    Raises ValueError as `head_scores` does, and for priors of another patch grid.
    """
    generator = torch.Generator().manual_seed(seed)
    names = np.array(list(priors))
    parts: list[pd.DataFrame] = []
    for indices, samples in batches(dataset, batch_size, limit, workers=workers):
        grid = patch_grid(samples, patch_size)
        truth = Truth(samples, indices, grid, within)
        noise = random_attention((len(samples), heads, *grid), generator)
        found = truth.score(noise, attention_mask(noise, keep, rule))
        parts.append(found.assign(model="random maps"))
        for region, (pixels, inside) in truth.regions.items():
            cover = (inside / pixels[:, None].clamp(min=1)).unflatten(-1, grid)
            found = truth.score(cover, cover >= 0.5, [region])
            parts.append(found[found["head"] == found["plane"]].assign(model="patch ceiling"))
        if priors:
            fixed = torch.stack(list(priors.values())).expand(len(samples), -1, -1, -1)
            if fixed.shape[-2:] != grid:
                raise ValueError(
                    f"priors are on {fixed.shape[-2]} x {fixed.shape[-1]} patches and these "
                    f"pictures on {grid[0]} x {grid[1]}; make both from pictures of one size"
                )
            found = truth.score(fixed, attention_mask(fixed, keep, rule))
            own = names[found["head"]] == found["mask"]
            parts.append(found[own].assign(model="location prior", head=0))
    return _frame([part.assign(layer=-1) for part in parts], SCORES, within)


def location_prior(
    dataset: Samples,
    patch_size: int,
    batch_size: int = 32,
    limit: int | None = None,
    workers: int = 0,
) -> dict[str, Float[Tensor, "gh gw"]]:
    """Where each mask usually is: name -> its share of each patch, averaged over the pictures.

    The honest rival of a head that finds a part: it knows where parts tend to be and nothing of
    the picture. Take it from other pictures than those it is scored on.

    Raises ValueError for an empty data set and for one without masks.
    """
    sums: dict[str, Tensor] = {}
    counted: Tensor | int = 0
    for indices, samples in batches(dataset, batch_size, limit, workers=workers):
        grid = patch_grid(samples, patch_size)
        truth = Truth(samples, indices, grid)
        counted = counted + truth.regions[PICTURE][0].sum(0).unflatten(-1, grid)
        for name in np.unique(truth.names[truth.names != ""]):
            total = truth.pixels[torch.from_numpy(truth.names == name)].sum(0).unflatten(-1, grid)
            sums[name] = sums.get(name, 0) + total
    if not sums:
        raise ValueError(NO_MASKS)
    return {name: total / torch.as_tensor(counted).clamp(min=1) for name, total in sums.items()}


@torch.inference_mode()
def _layers(
    model: UnrolledModel,
    dataset: Samples,
    batch_size: int,
    limit: int | None,
    progress: bool,
    workers: int,
    within: Sequence[str] = (),
) -> Iterator[tuple[Truth, int, Float[Tensor, "b h gh gw"]]]:
    """The truth, a layer's index and its `[CLS]` attention, layer by layer, batch by batch."""
    device = next(model.parameters()).device
    for indices, samples in batches(dataset, batch_size, limit, model.name, progress, workers):
        images = model.normalize(stack_images(samples).to(device))
        grid = model.patch_grid(images)
        truth = Truth(samples, indices, grid, within)
        for state in model.unroll(images):
            yield (
                truth,
                state.index,
                state.attention()[:, :, 0, model.patches].unflatten(-1, grid).cpu(),
            )


def patch_grid(samples: Sequence[Sample], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches; ValueError where they do not fill the pictures."""
    height, width = stack_images(samples).shape[-2:]
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"pictures are {height} x {width} pixels, which patch_size={patch_size} does not "
            "divide; load the data set with another image_size"
        )
    return height // patch_size, width // patch_size


def _frame(
    parts: Sequence[pd.DataFrame], columns: Sequence[str], within: Sequence[str] = ()
) -> pd.DataFrame:
    frame = pd.concat(parts, ignore_index=True)[list(columns)]
    absent = {"masks": NO_MASKS} if frame.empty else {}
    names = ", ".join(sorted(set(frame["mask"])))
    for name in within:
        if name not in set(frame.within):
            absent[name] = f"no mask lies within {name!r}; the masks here are {names}"
    if absent:
        raise AbsentError(absent, frame)
    return frame
