"""Other tokens than `[CLS]` ask: how much of a patch's attention lies on the objects."""

from __future__ import annotations

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_analysis.datasets import Samples, as_samples, stack_images
from crate_analysis.models import UnrolledModel
from crate_analysis.probes.attention import deepest_patch, patch_attention
from crate_analysis.probes.maps import attention_share
from crate_analysis.segmentation.baselines import blob_about
from crate_analysis.segmentation.rivals import OTHERS
from crate_analysis.segmentation.scoring import OWN
from crate_analysis.segmentation.truth import NO_MASKS
from crate_analysis.walk import READING, Reading, check_layer, check_model, device_of

INSIDE, OUTSIDE = "inside", "outside"
BLOB = "blob"


@torch.no_grad()
def query_scores(
    model: UnrolledModel,
    data: Samples,
    layer: int = -2,
    seed: int = 0,
    reading: Reading = READING,
) -> pd.DataFrame:
    """How much of the attention of a patch lies on the objects, and what its rivals give them.

    In each image two patches ask: the one deepest `inside` the objects and the one deepest
    `outside` of them (`deepest_patch`). What a patch gives to itself is left out, and the rest
    scaled to sum to 1.

    Parameters
    ----------
    model, data, reading : as `walk` takes them; images with masks. Those that are all object, or
        without any, are left out.
    layer : whose attention is read, from 0 or from the end when negative.
    seed : which other image an image is given.

    Returns a row for each image, query and kind of map: model, layer, image, query, maps; share,
    that of the pixels which objects cover, the score of an even map; and attention, the share of
    the map on the objects, the mean over heads. `maps` is `own`; `other images`, the network's
    answer to the same patch of another image, with which `image_specific` takes the difference; or
    `blob`, a Gaussian about the patch (`blob_about`).

    Raises ValueError for fewer than two such images, and as `patch_attention`.

    >>> from crate_analysis import load_model
    >>> found = query_scores(load_model("crate-creatures"), "creatures", reading=Reading(limit=3))
    >>> found.maps.unique().tolist()
    ['own', 'other images', 'blob']
    """
    samples = as_samples(data, image_size=check_model(model).config.image_size)
    read, kept, masks = [], [], []
    for indices, batch in reading.batches(samples):
        for index, sample in zip(indices, batch, strict=True):
            covered = sample.masks.any(0)
            if covered.any() and not covered.all():
                read.append(index)
                kept.append(sample)
                masks.append(covered)
    if len(read) < 2:
        raise ValueError(f"{len(read)} images have a place inside and one outside. {NO_MASKS}")
    objects = torch.stack(masks)
    grid = model.patch_grid(model.normalize(stack_images(kept[:1]).to(device_of(model))))
    places = torch.stack([deepest_patch(objects, grid), deepest_patch(~objects, grid)], 1)
    order = torch.randperm(len(read), generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(order)
    partner[order] = order.roll(-1)  # each another one's, in one round
    answers: dict[str, list[Tensor]] = {OWN: [], OTHERS: []}
    for start in range(0, len(read), reading.batch_size):
        rows = torch.arange(len(read))[start : start + reading.batch_size]
        for name, of in ((OWN, rows), (OTHERS, partner[rows])):
            images = stack_images([kept[row] for row in of.tolist()]).to(device_of(model))
            asked = patch_attention(model, model.normalize(images), places[rows], layer)
            answers[name].append(asked.cpu())
    maps = {name: torch.cat(parts) for name, parts in answers.items()}
    maps[BLOB] = blob_about(places, grid)[:, None]
    frames = []
    for name, own in maps.items():
        shares = _share_on(_without_itself(own, places), objects)
        for query, share in zip((INSIDE, OUTSIDE), shares.T, strict=True):
            columns = {
                "image": read,
                "query": query,
                "maps": name,
                "share": objects.float().mean((1, 2)),
                "attention": share.numpy(),
            }
            frames.append(pd.DataFrame(columns))
    frame = pd.concat(frames, ignore_index=True)
    frame.insert(0, "model", model.name)
    frame.insert(1, "layer", check_layer(model, layer))
    return frame


def _without_itself(
    maps: Float[Tensor, "b h q gh gw"], places: Int64[Tensor, "b q 2"]
) -> Float[Tensor, "b h q gh gw"]:
    grid = maps.shape[-2:]
    own = places[..., 0] * grid[1] + places[..., 1]
    flat = maps.flatten(-2).clone()
    return flat.scatter(-1, own[:, None, :, None].expand(*flat.shape[:-1], 1), 0).view_as(maps)


def _share_on(
    maps: Float[Tensor, "b h q gh gw"], objects: Bool[Tensor, "b H W"]
) -> Float[Tensor, "b q"]:
    share = attention_share(maps.flatten(1, 2), objects[:, None])[..., 0]
    return share.unflatten(1, maps.shape[1:3]).mean(1)
