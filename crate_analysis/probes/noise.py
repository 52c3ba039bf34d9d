"""What noise on the pixels does to a network: its maps, its answer, its patch tokens."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from crate_analysis.datasets import Samples, as_samples, stack_images
from crate_analysis.datasets.noise import Noise, NoisyImages
from crate_analysis.models import UnrolledModel
from crate_analysis.probes.versions import compare_maps
from crate_analysis.walk import READING, Reading, check_model, device_of


def under_noise(
    model: UnrolledModel,
    data: Samples,
    levels: Sequence[Noise],
    layer: int = -2,
    seed: int = 0,
    reading: Reading = READING,
) -> pd.DataFrame:
    """How alike each image's maps of `[CLS]` stay under noise, and whether it is named rightly.

    Parameters
    ----------
    model, data, reading : as `walk` takes them; two images or more of one size.
    levels : of noise, see `Noise`. An image without the masks that a level asks for is left out
        of that level.
    layer : whose maps are read, from 0 or from the end when negative.
    seed : of the noise, see `NoisyImages`.

    Returns a row for each level and image: model, level (its place in `levels`), share, sd, where;
    image; similarity, others and kept as `kept_similarity` has them, against the maps of the images
    without noise; hit, 1 where the class is right and 0 where not, NaN without a label or for
    classes that are not the classifier's. Raises what `walk` and `NoisyImages` raise.

    >>> from crate_analysis import load_model
    >>> few, half = Reading(limit=2), Noise(0.5, 75.0)
    >>> under_noise(load_model("crate-creatures"), "creatures", [half], reading=few).image.tolist()
    [0, 1]
    """
    samples = as_samples(data, image_size=check_model(model).config.image_size)
    noisy = [NoisyImages(samples, [level], seed) for level in levels]
    found = compare_maps(model, samples, dict(enumerate(noisy)), layer, reading)
    columns = pd.DataFrame([level._asdict() for level in levels]).rename_axis("level")
    found = found.rename(columns={"version": "level"}).join(columns, on="level")
    return found[["model", "level", *columns, *found.columns[2 : -len(columns.columns)]]]


@torch.inference_mode()
def embedding_change(
    model: UnrolledModel,
    data: Samples,
    levels: Sequence[Noise],
    seed: int = 0,
    reading: Reading = READING,
) -> pd.DataFrame:
    """How far noise moves the patch tokens before the first layer, by the patches' contrast.

    An embedding that normalises each patch makes much of a little noise where there is nothing
    else; one that is linear in the pixels does not.

    Parameters
    ----------
    model, data, levels, seed, reading : as `under_noise` takes them; images must not be left out
        of a level.

    Returns a row for each level, image and kind of patch: model, level, share, sd, where, image;
    patches, `low contrast` or `high contrast`, below the median standard deviation of the patch's
    clean pixels among all patches of all images, or not; and change, the squared distance to the
    clean token as a multiple of the patch tokens' variance over images. An image without patches of
    a kind has no row for it.
    """
    samples = as_samples(data, image_size=check_model(model).config.image_size)
    indices, clean, contrast = [], [], []
    for some, batch in reading.batches(samples):
        indices += some
        images = stack_images(batch)
        clean.append(_patch_tokens(model, images))
        gh, gw = model.patch_grid(model.normalize(images[:1].to(device_of(model))))
        cells = images.float().unflatten(2, (gh, -1)).unflatten(4, (gw, -1))
        contrast.append(cells.std((3, 5)).mean(1).flatten(1))
    tokens, spread = torch.cat(clean), torch.cat(contrast)
    variance = (tokens - tokens.mean(0)).square().sum(-1).mean()
    low = spread < spread.median()
    frames = []
    for place, level in enumerate(levels):
        noisy = NoisyImages(samples, [level], seed)
        found = [_patch_tokens(model, stack_images(batch)) for _, batch in reading.batches(noisy)]
        change = (torch.cat(found) - tokens).square().sum(-1) / variance
        for patches, chosen in (("low contrast", low), ("high contrast", ~low)):
            mean = (change * chosen).sum(1) / chosen.sum(1)  # NaN where there is none
            names = {"model": model.name, "level": place, **level._asdict()}
            rows = pd.DataFrame({"image": indices, "patches": patches, "change": mean.numpy()})
            frames.append(rows.assign(**names)[[*names, *rows]].dropna(subset="change"))
    return pd.concat(frames, ignore_index=True)


def _patch_tokens(model: UnrolledModel, images: Tensor) -> Float[Tensor, "b n d"]:
    """The patch tokens before the first layer, on the CPU."""
    return model.embed(model.normalize(images.to(device_of(model))))[:, model.patches].cpu()
