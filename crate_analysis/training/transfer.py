"""Transfer: what a trained network is worth on images that it was not trained on.

Two measures, as in Yu et al. 2024, Table 3 and its usual companion. A *linear probe* trains one
linear classifier on the features of the frozen network. *Fine-tuning* goes on training all of it;
that is supervised training with `SupervisedRecipe.start`, and what is here names its architecture
and its folder and scores the result. Neither means anything without its controls: the same on raw
pixels, on a network that was never trained, and training from random weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from crate_analysis.datasets import batches, load_dataset
from crate_analysis.datasets.folder import Folder
from crate_analysis.fingerprints import digest, of_data, of_weights
from crate_analysis.measures import mean_interval
from crate_analysis.models import UnrolledModel, load_model
from crate_analysis.models.config import ModelConfig
from crate_analysis.models.registry import ARCHS, arch_config, from_config
from crate_analysis.probes.controls import pixel_features
from crate_analysis.training.images import CachedImages
from crate_analysis.training.knn import NEIGHBOURS, knn_hits
from crate_analysis.training.recipe import SupervisedRecipe
from crate_analysis.training.supervised import EVALUATION_BATCH, train, without_classifier

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Inverse regularisation strengths C that a probe is chosen from; 1 regularises least."""
READING = ["model", "weights", "features", "reader", "n_train", "strength"]
"""Columns that say from what, how and after how much learning classes are read."""


class Labelled(NamedTuple):
    """Some of the images of a split, in the order in which they are taken."""

    data: CachedImages
    indices: list[int]

    @property
    def labels(self) -> Int64[Tensor, " n"]:
        """One an image."""
        return torch.from_numpy(self.data.labels[self.indices])

    def first(self, count: int) -> Labelled:
        """The first `count` of them."""
        return Labelled(self.data, self.indices[:count])


class Splits(NamedTuple):
    """Images to learn from, to choose settings on, and to report."""

    train: Labelled
    dev: Labelled
    val: Labelled


class Probe(NamedTuple):
    """What a linear probe came to."""

    hits: Bool[Tensor, " n"]
    """Which of the reported images it names rightly."""
    strength: float
    """The C that was best on the images that settings are chosen on."""


def load_splits(
    spec: str, image_size: int, n_train: int, n_dev: int, n_val: int, cache: Path, seed: int = 0
) -> Splits:
    """At most so many images of each kind, drawn or decoded once and then kept in `cache`.

    Settings are chosen on the split `dev`; a folder has none, and there a random part of the
    training images takes its place, which are then not learned from.

    Raises ValueError where images have no labels, and where there are fewer than two classes or
    fewer training images than classes; and what `load_dataset` raises, as for a folder without
    splits, whose images would be learned from and reported.
    """
    reported = load_dataset(spec, "val", image_size)
    _, (first,) = next(batches(reported, 1))
    if first.label is None:
        raise ValueError(
            f"{spec} has no labels, one class an image: take creatures-exotic, or folder:ROOT "
            "with images sorted into train/CLASS and val/CLASS"
        )
    source = load_dataset(spec, "train", image_size)
    classes = tuple(source.classes)
    if len(classes) == 1:
        raise ValueError(f"{spec} has one class only, {classes[0]!r}: there is nothing to tell")

    def cached(split: str, count: int) -> Labelled:
        data = CachedImages(spec, split, image_size, count, seed, cache)
        # a folder's images lie class by class
        order = np.random.default_rng(seed).permutation(len(data))
        return Labelled(data, order.tolist())

    val = cached("val", n_val)
    if isinstance(source, Folder):
        both = cached("train", n_train + n_dev)
        held_out = max(1, len(both.indices) * n_dev // (n_train + n_dev))
        train = Labelled(both.data, both.indices[held_out:])
        dev = both.first(held_out)
    else:
        train, dev = cached("train", n_train), cached("dev", n_dev)
    if len(train.indices) < len(classes):
        raise ValueError(
            f"{len(train.indices)} images of {spec} to learn from are fewer than its "
            f"{len(classes)} classes: take at least {len(classes)}"
        )
    return Splits(train, dev, val)


def backbone(model: UnrolledModel) -> UnrolledModel:
    """The same network without its classifier: it gives what the classifier saw, (b, c)."""
    with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten
        bare = from_config(model.config.override(num_classes=0))
    bare.load_state_dict(without_classifier(model))
    bare.name = model.name
    return bare.to(next(model.parameters()).device).eval()


@torch.inference_mode()
def read_features(model: UnrolledModel, part: Labelled) -> dict[str, Float[Tensor, "n c"]]:
    """`cls`, what the classifier sees of each image, and `patches`, the mean over its patches.

    The first is the `[CLS]` token of the last layer after the final norm; the patches go through
    the same norm, one by one.
    """
    bare = backbone(model)
    device = next(bare.parameters()).device
    rows: dict[str, list[Tensor]] = {"cls": [], "patches": []}
    for first in range(0, len(part.indices), EVALUATION_BATCH):
        images, _ = part.data.batch(part.indices[first : first + EVALUATION_BATCH])
        for state in bare.unroll(bare.normalize(images.to(device))):
            tokens = state.output
        patches = tokens[:, bare.patches]
        normed = bare.classify(patches.flatten(0, 1)[:, None]).unflatten(0, patches.shape[:2])
        rows["cls"].append(bare.classify(tokens).cpu())
        rows["patches"].append(normed.mean(1).cpu())
    return {name: torch.cat(parts) for name, parts in rows.items()}


def pixels_of(part: Labelled) -> Float[Tensor, "n c"]:
    """`pixel_features` of the images: what a probe gets without a network."""
    rows = []
    for first in range(0, len(part.indices), EVALUATION_BATCH):
        images, _ = part.data.batch(part.indices[first : first + EVALUATION_BATCH])
        rows.append(pixel_features(images))
    return torch.cat(rows)


def linear_probe(
    features: Mapping[str, Float[Tensor, "_ c"]], labels: Mapping[str, Int64[Tensor, " _"]]
) -> Probe:
    """A linear classifier of whole images, for `train`, `dev` and `val`.

    Multinomial logistic regression on features that are standardised by those of `train`; the
    strength of its regularisation is the one of `STRENGTHS` that is best on `dev`, the stronger
    of two that are alike. `val` has no part in it.

    Raises ValueError where the training labels are all the same.
    """
    if len(labels["train"].unique()) < 2:
        raise ValueError("the images to learn from are all of one class; take more")
    fitted = []
    for strength in STRENGTHS:
        classifier = LogisticRegression(C=strength, max_iter=2_000)
        probe = make_pipeline(StandardScaler(), classifier)
        with threadpool_limits(1):  # on matrices this small, threads cost ten times what they save
            probe.fit(features["train"].numpy(), labels["train"].numpy())
        score = probe.score(features["dev"].numpy(), labels["dev"].numpy())
        fitted.append((score, strength, probe))
    _, strength, probe = max(fitted, key=lambda one: one[0])
    found = torch.from_numpy(probe.predict(features["val"].numpy()))
    return Probe(found == labels["val"], strength)


def probe_hits(
    models: Mapping[str, UnrolledModel], splits: Splits, sizes: Sequence[int], seed: int = 0
) -> pd.DataFrame:
    """Which images a linear probe, or a vote of neighbours, names rightly by frozen features.

    Rows for each of the `sizes`, numbers of training images, and each network, features and way
    of reading, one an image of `val`. Each network has beside it the same one untrained, of random
    weights that `seed` settles, and all have raw pixels; the columns are

    | column | |
    | --- | --- |
    | model | a name, or `pixels` |
    | weights | `trained`, `untrained` or `none` |
    | features | `cls`, `patches` or `pixels` |
    | reader | `linear` or `k-NN`, the vote of the 20 nearest |
    | n_train | training images |
    | strength | the probe's C, NaN for k-NN |
    | image | place in `val` |
    | hit | 1 where it is named rightly, or 0 |

    A vote needs 20 training images and is left out below. Raises ValueError for a size that is
    more than there are, or less than 2.
    """
    for size in sizes:
        if not 2 <= size <= len(splits.train.indices):
            raise ValueError(
                f"size {size} must be 2 to {len(splits.train.indices)}, the images to learn from"
            )
    labels = {name: part.labels for name, part in splits._asdict().items()}
    kept: dict[tuple[str, str, str], dict[str, Tensor]] = {
        ("pixels", "none", "pixels"): {
            name: pixels_of(part) for name, part in splits._asdict().items()
        }
    }
    for name, model in models.items():
        for weights, network in (("trained", model), ("untrained", _untrained(model, seed))):
            read = {part: read_features(network, one) for part, one in splits._asdict().items()}
            for kind in ("cls", "patches"):
                kept[name, weights, kind] = {part: values[kind] for part, values in read.items()}
    frames = []
    for source, features in kept.items():
        for size in sizes:
            known = features | {"train": features["train"][:size]}
            told = labels | {"train": labels["train"][:size]}
            probe = linear_probe(known, told)
            found = [("linear", probe.strength, probe.hits)]
            if size >= NEIGHBOURS:
                hits = knn_hits(known["train"], told["train"], known["val"], told["val"])
                found.append(("k-NN", np.nan, hits))
            for reader, strength, hits in found:
                row = dict(zip(READING, (*source, reader, size, strength), strict=True))
                frames.append(pd.DataFrame({**row, "image": range(len(hits)), "hit": hits.int()}))
    return pd.concat(frames, ignore_index=True)


def accuracies(hits: pd.DataFrame) -> pd.DataFrame:
    """`probe_hits` with accuracies in place of images.

    `mean` is a share in [0, 1]; `low` and `high` are the ends of its 95 % interval over images.
    """
    rows = [
        (*reading, *mean_interval(part.hit))
        for reading, part in hits.groupby(READING, sort=False, dropna=False)
    ]
    return pd.DataFrame(rows, columns=[*READING, "mean", "low", "high"])


def _untrained(model: UnrolledModel, seed: int) -> UnrolledModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return from_config(model.config).to(next(model.parameters()).device)


def architecture_of(config: ModelConfig, num_classes: int) -> tuple[str, dict[str, Any]]:
    """What a recipe calls a network of this config with so many classes: `arch` and `overrides`."""

    def differing(arch: str) -> dict[str, Any]:
        base = asdict(ARCHS[arch])
        return {key: value for key, value in wanted.items() if value != base[key]}

    wanted = asdict(config) | {"num_classes": num_classes}
    family = [arch for arch, base in ARCHS.items() if base.family == config.family]
    arch = min(family, key=lambda arch: len(differing(arch)))
    return arch, differing(arch)


def fine_tune(recipe: SupervisedRecipe, folder: Path, cache: Path) -> UnrolledModel:
    """Train by a recipe in a folder of its own below `folder`; one that was stopped goes on.

    Its name holds a digest of the recipe, of the weights that it starts from and of images that
    it learns from: the same request again is answered from there, and another goes elsewhere.
    Raises what `supervised.train` raises.
    """
    data = load_dataset(
        recipe.dataset,
        "train",
        arch_config(recipe.arch).override(**recipe.overrides).image_size,
        recipe.n_train,
        recipe.data_seed,
    )
    start = of_weights(load_model(recipe.start)) if recipe.start else ""
    parts = (json.dumps(recipe.to_dict()), start, of_data(data))
    return train(recipe, folder / f"{recipe.arch}-{digest(map(str.encode, parts))}", cache)


@torch.inference_mode()
def classifier_hits(model: UnrolledModel, part: Labelled) -> Bool[Tensor, " n"]:
    """Which of the images a network's own classifier names rightly, as after fine-tuning."""
    model.eval()
    device = next(model.parameters()).device
    found = []
    for first in range(0, len(part.indices), EVALUATION_BATCH):
        images, _ = part.data.batch(part.indices[first : first + EVALUATION_BATCH])
        found.append(model(model.normalize(images.to(device))).argmax(1).cpu())
    return torch.cat(found) == part.labels
