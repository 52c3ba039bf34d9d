"""Rivals of a network's maps, with the same choice: what is scored well without this image.

A best-of-k score says little beside a single map that knows nothing: k such maps have the same
choice. What a network's maps know of *their* image is what they score there beyond what its maps of
other images score there, the image-specific part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.datasets import Samples, as_samples
from crate_analysis.datasets.batches import left_out_gathered
from crate_analysis.models import Edit, UnrolledModel
from crate_analysis.probes.attention import cls_maps
from crate_analysis.segmentation.evaluation import SCORING
from crate_analysis.segmentation.scoring import OWN, Scoring
from crate_analysis.segmentation.truth import NO_MASKS, Truth
from crate_analysis.walk import READING, Reading, check_model, walk

OTHERS = "other images"
KMEANS = "k-means masks"
MEAN = "mean mask"
PRIOR = "location prior"
RANDOM = "random maps"
CEILING = "patch ceiling"
FROM_TRAINING = (KMEANS, MEAN, PRIOR)
"""Those that are made from training images."""
RIVALS = (OTHERS, KMEANS, MEAN, PRIOR, RANDOM, CEILING)
"""What the column `maps` calls maps that are not the network's own of the image."""


def scores_with_rivals(
    model: UnrolledModel,
    data: Samples,
    train: Samples | None,
    scoring: Scoring = SCORING,
    layers: Sequence[int] | None = None,
    rivals: Sequence[str] = RIVALS,
    draws: int = 4,
    seed: int = 0,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """The scores of a network's `[CLS]` maps and of their rivals, against the same masks.

    Parameters
    ----------
    model, data, layers, reading, edits : as `walk` takes them; two images or more of one size, with
        masks.
    train : other images with masks, of the same size, that the mean masks are made from; a spec is
        loaded in its split `train`. `reading.limit` holds for it too. None where no rival is made
        from training images.
    scoring : what is scored, for all maps alike.
    rivals : of these, by the column `maps`:
        `other images`, the network's own maps of another image, layer by layer and head by head;
        each of `draws` draws gives every image the maps of another one.
        `k-means masks`, as many mean masks as there are heads, the centres of a k-means clustering
        of the whole objects of `train`.
        `mean mask`, the mean of all whole objects of `train`.
        `location prior`, for each mask the mean over `train` of the masks of its name, parts and
        whole objects apart.
        `random maps`, as many as there are heads, each patch drawn evenly from [0, 1), in each of
        `draws` draws.
        `patch ceiling`, the share of each patch that the true mask covers; its mask, whatever the
        rule, holds the patches that are covered by half or more.
    seed : settles the draws and the clustering.

    Returns a frame with the columns of `head_scores`: the network's rows, with `maps` = `own`, and
    each rival's, layer -1 where it has none. `best_heads` chooses among the heads of each in the
    same way; `image_specific` takes the difference of own maps and those of other images. All maps
    of all images are kept in memory, for a base model with patch 8 at 224 x 224 about 0.5 MB an
    image.

    Raises what `head_scores` raises, ValueError for a rival that there is none of, for fewer than
    two images where maps of others are asked for, and for `train` without masks or of another
    patch grid.

    >>> from crate_analysis import load_dataset, load_model
    >>> from crate_analysis.segmentation import best_heads
    >>> train = load_dataset("creatures", "train", 72, limit=8)
    >>> model, four = load_model("crate-creatures"), Reading(limit=4)
    >>> scores = scores_with_rivals(model, "creatures", train, layers=[-2], reading=four)
    >>> best_heads(scores).groupby("maps").iou.mean().idxmax()
    'patch ceiling'
    """
    unknown = [name for name in rivals if name not in RIVALS]
    if unknown:
        raise ValueError(f"there is no rival {unknown[0]!r}; there are {', '.join(RIVALS)}")
    if draws < 1:
        raise ValueError(f"draws={draws} must be at least 1")
    trained = [name for name in rivals if name in FROM_TRAINING]
    if trained and train is None:
        raise ValueError(f"{trained[0]!r} is made from training images: give train, or none of it")
    size = check_model(model).config.image_size
    samples = as_samples(data, image_size=size)
    own = _own(model, samples, scoring, layers, reading, edits)
    _, _, heads, *shape = own.maps.shape
    grid = (shape[0], shape[1])
    fixed: dict[str, Tensor] = {}
    prior: dict[tuple[str, bool], Tensor] = {}
    if train is not None and trained:
        masks, prior = _mean_masks(as_samples(train, "train", size), grid, scoring, reading)
        fixed = {MEAN: masks.mean(0, keepdim=True), KMEANS: _centres(masks, heads, seed)}
        fixed = {name: maps.unflatten(-1, grid) for name, maps in fixed.items() if name in rivals}
    partners = _partners(len(own.indices), draws, seed) if OTHERS in rivals else []
    row_of = {index: row for row, index in enumerate(own.indices)}

    def scored() -> Iterator[pd.DataFrame]:
        with left_out_gathered():  # they were listed when the network read the images
            for indices, batch in reading.batches(samples):
                truth = scoring.truth(batch, indices, grid)
                rows = [row_of[index] for index in indices]
                for draw, partner in enumerate(partners):
                    for place, layer in enumerate(own.layers):
                        found = scoring.score(truth, own.maps[partner[rows], place])
                        yield found.assign(maps=OTHERS, draw=draw, layer=layer)
                for name, maps in fixed.items():
                    found = scoring.score(truth, maps.expand(len(batch), -1, -1, -1))
                    yield found.assign(maps=name)
                if RANDOM in rivals:
                    for draw in range(draws):
                        noise = _random(indices, (heads, *grid), (seed, draw))
                        yield scoring.score(truth, noise).assign(maps=RANDOM, draw=draw)
                if CEILING in rivals:
                    yield _ceiling(scoring, truth).assign(maps=CEILING)
                if PRIOR in rivals:
                    yield _prior(scoring, truth, prior).assign(maps=PRIOR)

    parts = [part for part in scored() if len(part)]
    defaults = {"draw": 0, "layer": -1}
    rows = [part.assign(**{k: v for k, v in defaults.items() if k not in part}) for part in parts]
    return scoring.frame([*own.scores, *(part.assign(model=model.name) for part in rows)])


def location_prior(
    train: Samples,
    grid: tuple[int, int],
    scoring: Scoring = SCORING,
    reading: Reading = READING,
) -> dict[tuple[str, bool], Float[Tensor, "gh gw"]]:
    """Where masks of each name usually are: (name, is it a part) -> mean share of each patch.

    The rival of a head that finds a part: it knows where parts tend to be and nothing of the
    image. Take it from other images than those it is scored on; a spec is loaded in its split
    `train`. Raises ValueError for data without masks and for images that the grid does not divide.
    """
    _, prior = _mean_masks(as_samples(train, split="train"), grid, scoring, reading)
    return {name: share.unflatten(-1, grid) for name, share in prior.items()}


def mean_masks(
    train: Samples,
    grid: tuple[int, int],
    count: int,
    scoring: Scoring = SCORING,
    seed: int = 0,
    reading: Reading = READING,
) -> Float[Tensor, "count gh gw"]:
    """Mean masks of whole objects, as many as `count`: the centres of a k-means clustering.

    The rival of the best of `count` heads: it knows what objects tend to look like, and nothing of
    the image. With one, the mean of all objects. Arguments and errors as for `location_prior`, and
    ValueError for fewer objects than `count`.
    """
    masks, _ = _mean_masks(as_samples(train, split="train"), grid, scoring, reading)
    return _centres(masks, count, seed).unflatten(-1, grid)


def image_specific(scores: pd.DataFrame, value: str = "iou") -> pd.DataFrame:
    """What a network's own maps score beyond its maps of other images, row by row.

    Parameters
    ----------
    scores : of `scores_with_rivals`, or what `best_heads` made of them, with the rows of `own` and
        of `other images`.

    Returns the rows of `own` with two more columns: `others`, the value that the maps of other
    images have in the same image (and layer, mask, head, ...), the mean over draws; and
    `image_specific`, `value` less that. Maps that do not depend on the image have 0. For the best
    of several heads, choose first (`best_heads`), so that both had the choice.

    Raises ValueError where rows of the one or the other are missing.

    >>> import pandas as pd
    >>> one = {"image": 3, "maps": ["own", "other images"], "iou": [0.5, 0.3]}
    >>> image_specific(pd.DataFrame(one)).image_specific.round(3).tolist()
    [0.2]
    """
    own, others = (scores[scores["maps"] == name] for name in (OWN, OTHERS))
    for name, rows in ((OWN, own), (OTHERS, others)):
        if rows.empty:
            raise ValueError(
                f"scores hold no maps of {name!r}; take a frame of scores_with_rivals with both"
            )
    values = {"share", "iou", "attention", "average_precision", "maps", "draw"}
    keys = [column for column in scores if column not in values]
    means = (
        others.groupby(keys, sort=False, dropna=False)[value].mean().rename("others").reset_index()
    )
    found = own.merge(means, on=keys, how="left", validate="many_to_one")
    if len(found) and found.others.isna().all():
        raise ValueError("own maps and those of other images have no image and layer in common")
    return found.assign(image_specific=found[value] - found.others)


class _Own(NamedTuple):
    indices: list[int]
    layers: list[int]
    maps: Float[Tensor, "i l h gh gw"]
    scores: list[pd.DataFrame]


@torch.inference_mode()
def _own(
    model: UnrolledModel,
    samples: Any,
    scoring: Scoring,
    layers: Sequence[int] | None,
    reading: Reading,
    edits: Sequence[Edit],
) -> _Own:
    """The network's maps of all images, and their scores, in one forward pass an image."""
    indices: list[int] = []
    scores = []
    seen: dict[int, list[Tensor]] = {}
    grid: tuple[int, int] | None = None
    for batch in walk(model, samples, layers, reading, edits):
        if grid not in (None, batch.grid):
            raise ValueError(
                f"images have {grid} and {batch.grid} patches; load them with one image_size"
            )
        grid = batch.grid
        indices += batch.indices
        truth = scoring.truth(batch.samples, batch.indices, grid)
        for state in batch.states:
            maps = cls_maps(state.attention(), grid).cpu()
            seen.setdefault(state.index, []).append(maps)
            found = scoring.score(truth, maps)
            scores.append(found.assign(model=model.name, maps=OWN, draw=0, layer=state.index))
    stacked = torch.stack([torch.cat(parts) for parts in seen.values()], dim=1)
    return _Own(indices, list(seen), stacked, scores)


def _partners(count: int, draws: int, seed: int) -> list[np.ndarray]:
    """For each draw another image for every image: all in one random round, each the next one's."""
    if count < 2:
        raise ValueError("one image has no maps of other images beside it; give at least two")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        order = rng.permutation(count)
        partner = np.empty(count, dtype=int)
        partner[order] = np.roll(order, 1)
        found.append(partner)
    return found


def _random(
    indices: Sequence[int], shape: tuple[int, ...], seeds: tuple[int, ...]
) -> Float[Tensor, "b h gh gw"]:
    """The same for an image whatever batch it comes in."""
    drawn = [np.random.default_rng((*seeds, index)).random(shape) for index in indices]
    return torch.from_numpy(np.stack(drawn)).float()


def _mean_masks(
    samples: Any, grid: tuple[int, int], scoring: Scoring, reading: Reading
) -> tuple[Float[Tensor, "k n"], dict[tuple[str, bool], Float[Tensor, " n"]]]:
    """Each whole object's share of each patch, and for each name the mean share over all images."""
    wholes: list[Tensor] = []
    sums: dict[tuple[str, bool], Tensor] = {}
    counted = torch.zeros(grid[0] * grid[1])
    for indices, batch in reading.batches(samples):
        height, width = batch[0].image.shape[1:]
        if height % grid[0] or width % grid[1]:
            raise ValueError(
                f"training images are {height} x {width} pixels, which a grid of {grid[0]} x "
                f"{grid[1]} patches does not divide; load them at the size of the others"
            )
        truth = scoring.truth(batch, indices, grid)
        counted += truth.counted.sum((0, 1))
        is_whole = truth.present & (torch.from_numpy(truth.wholes) < 0)
        share = truth.pixels / truth.counted.clamp(min=1)
        wholes.append(share[is_whole])
        for row, place in truth.present.nonzero().tolist():
            name = truth.names[row, place], bool(truth.wholes[row, place] >= 0)
            sums[name] = sums.get(name, torch.zeros_like(counted)) + truth.pixels[row, place]
    if not sums:
        raise ValueError(NO_MASKS)
    return torch.cat(wholes), {name: each / counted.clamp(min=1) for name, each in sums.items()}


def _centres(masks: Float[Tensor, "k n"], count: int, seed: int) -> Float[Tensor, "c n"]:
    from sklearn.cluster import KMeans

    if len(masks) < count:
        raise ValueError(
            f"{len(masks)} objects of the training images make no {count} mean masks, one a head; "
            "give more training images"
        )
    means = KMeans(count, n_init=4, random_state=seed).fit(masks.numpy())
    return torch.from_numpy(means.cluster_centers_).float().clamp(min=0)


def _ceiling(scoring: Scoring, truth: Truth) -> pd.DataFrame:
    """Each mask's own cover as its map."""
    found = []
    for region in scoring.within:
        _, pixels, counted = truth.region(region)
        cover = (pixels / counted.clamp(min=1)).unflatten(-1, truth.grid)
        rows = scoring.score(truth, cover, cover >= 0.5, [region])
        found.append(rows[rows["head"] == rows["place"]] if len(rows) else rows)
    return pd.concat(found, ignore_index=True).assign(head=0)


def _prior(
    scoring: Scoring, truth: Truth, prior: Mapping[tuple[str, bool], Tensor]
) -> pd.DataFrame:
    """Each mask's rows with the map of its own name; none for a name that training lacks."""
    maps = torch.stack(list(prior.values())).unflatten(-1, truth.grid)
    rows = scoring.score(truth, maps.expand(len(truth.masks), -1, -1, -1))
    if rows.empty:
        return rows
    names = {name: head for head, name in enumerate(prior)}
    pairs = zip(rows["mask"], rows["is_part"], strict=True)
    own = np.array([names.get(pair, -1) for pair in pairs])
    return rows[rows["head"].to_numpy() == own].assign(head=0)
