"""What edits do to what a network answers.

A *question* is one that the class settles: the class itself, and where the data set says what its
classes are made of (`bits`), each of these by itself. Its *margin* is log p(right) - log p(wrong),
where the probabilities of all classes that give the same answer are added: the log odds, in nats.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from scipy.stats import rankdata
from torch import Tensor

from crate_analysis.datasets import Samples, as_samples
from crate_analysis.interventions.edits import By, ablate_head
from crate_analysis.interventions.recording import Recording
from crate_analysis.measures import MeanInterval
from crate_analysis.models import Edit, LayerState, UnrolledModel
from crate_analysis.walk import READING, Reading, check_model, walk

CLASS = "class"
"""The question that every data set with labels asks."""
NO_EDIT = "none"
"""What the rows of the network as it is are called."""
COLUMNS = ["model", "edit", "image", "label", "question", "right", "margin"]


class Questions(NamedTuple):
    """What the classes of a data set settle besides themselves."""

    names: tuple[str, ...]
    bits: Bool[Tensor, "c k"]
    """For each class the answer to each question."""


def questions_of(data: Samples) -> Questions:
    """The questions that a data set's classes settle: `parts` and `bits` of it; of others none.

    >>> questions_of("creatures-parts").names
    ('ears', 'legs', 'tail', 'muzzle')
    """
    samples = as_samples(data)
    names = tuple(getattr(samples, "parts", ()))
    return Questions(names, getattr(samples, "bits", torch.zeros(0, len(names), dtype=torch.bool)))


@torch.inference_mode()
def outcomes(
    model: UnrolledModel,
    data: Samples,
    edits: Mapping[Hashable, Sequence[Edit]],
    reading: Reading = READING,
) -> pd.DataFrame:
    """What a network answers with each list of edits, and without: `none`.

    Layers before the first that is edited are run once for all.

    Parameters
    ----------
    model, data, reading : as `walk` takes them; the data set's labels are the network's classes.
    edits : name, or a tuple of what tells them apart, -> edits that are made together.

    Returns a frame with a row for each edit, image and question: model, edit, image, label,
    question (`class`, or one of `questions_of`), right (0 or 1) and margin (see above). Raises what
    `walk` raises, and ValueError for images without a label, a label that is no class of the
    network, no edits, and a name `none`.

    >>> from crate_analysis import load_model
    >>> from crate_analysis.interventions import skip
    >>> last = {"last": [skip(-1, "compression")]}
    >>> frame = outcomes(load_model("crate-creatures"), "creatures", last, Reading(limit=8))
    >>> frame.groupby("edit").size().to_dict()
    {'last': 8, 'none': 8}
    """
    if not edits or NO_EDIT in edits or not all(edits.values()):
        raise ValueError(
            f"edits must name some, each with a list that is not empty, and none {NO_EDIT!r}"
        )
    asked = questions_of(as_samples(data, image_size=check_model(model).config.image_size))
    parts = []
    for batch in walk(model, data, reading=reading):
        labels = _labels([sample.label for sample in batch.samples], model)
        plain = list(batch.states)
        runs: Iterator[tuple[Hashable, list[LayerState]]] = (
            (name, list(_from(model, plain, together))) for name, together in edits.items()
        )
        for name, states in ((NO_EDIT, plain), *runs):
            answers = answer(model.classify(states[-1].output), labels, asked)
            parts.append(_rows(answers, name, batch.indices, labels))
    return pd.concat(parts, ignore_index=True).assign(model=model.name)[COLUMNS]


def _from(
    model: UnrolledModel, plain: list[LayerState], edits: Sequence[Edit]
) -> Iterator[LayerState]:
    first = min(model.layer_index(edit.layer) for edit in edits)
    return model.resume(plain[first].tokens, first, edits)


def answer(
    logits: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], questions: Questions
) -> dict[str, tuple[Tensor, Tensor]]:
    """Question -> whether each image's answer is right, and by what margin."""
    logs = logits.double().log_softmax(-1)
    own = torch.arange(logs.shape[1], device=logs.device) == labels[:, None]
    found = {CLASS: (logs.argmax(-1) == labels, _margin(logs, own))}
    for name, bits in zip(questions.names, questions.bits.T.to(logs.device), strict=True):
        margin = _margin(logs, bits == bits[labels][:, None])
        found[name] = (margin > 0, margin)
    return found


def _margin(logs: Float[Tensor, "b c"], right: Bool[Tensor, "b c"]) -> Float[Tensor, " b"]:
    low = torch.finfo(logs.dtype).min
    return logs.masked_fill(~right, low).logsumexp(-1) - logs.masked_fill(right, low).logsumexp(-1)


def _labels(labels: Sequence[int | None], model: UnrolledModel) -> Int64[Tensor, " b"]:
    classes = model.config.num_classes
    for label in labels:
        if label is None or not 0 <= label < classes:
            raise ValueError(
                f"an image has label {label}, but {model.name} has classes 0 to {classes - 1}; "
                "take the data set that it was trained on"
            )
    return torch.tensor(labels, device=next(model.parameters()).device)


def _rows(
    answers: Mapping[str, tuple[Tensor, Tensor]],
    edit: Hashable,
    images: Sequence[int],
    labels: Tensor,
) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "edit": [edit] * len(images),
                "image": images,
                "label": labels.cpu().numpy(),
                "question": question,
                "right": right.cpu().numpy().astype(float),
                "margin": margin.cpu().numpy(),
            }
        )
        for question, (right, margin) in answers.items()
    ]
    return pd.concat(frames, ignore_index=True)


def costs(frame: pd.DataFrame) -> pd.DataFrame:
    """What each edit costs: the answers of the network as it is less those with the edit.

    Parameters
    ----------
    frame : of `outcomes`.

    The same columns, without the rows of `none`; `right` is the loss of accuracy, 1, 0 or -1 an
    image, and `margin` that of margin, in nats: above 0 the edit does harm. `before` says whether
    the answer was right without.
    """
    keys = ["model", "image", "question"]
    plain = frame[frame.edit == NO_EDIT].set_index(keys)
    edited = frame[frame.edit != NO_EDIT]
    before = plain.loc[pd.MultiIndex.from_frame(edited[keys])]
    lost = {name: before[name].to_numpy() - edited[name].to_numpy() for name in ("right", "margin")}
    return edited.assign(**lost, before=before["right"].to_numpy())


def head_costs(
    model: UnrolledModel,
    data: Samples,
    of: Recording,
    by: Sequence[By] = ("zero", "mean", "resample", "noise"),
    reading: Reading = READING,
    seed: int = 0,
) -> pd.DataFrame:
    """What each head's ablation costs each question, by each kind of ablation: `costs`.

    Parameters
    ----------
    of : `record` of ``head_outputs`` of all layers, of other images: for mean and resample.
    by, seed : of `ablate_head`.

    Returns the frame of `costs` with the columns layer, head (from 0) and by in place of edit.
    Raises as `outcomes` and `ablate_head`.
    """
    layers, heads = len(check_model(model).layers), model.config.heads
    edits: dict[Hashable, Sequence[Edit]] = {
        (kind, layer, head): [
            ablate_head(layer, head, kind, of if kind in ("mean", "resample") else None, seed)
        ]
        for kind in by
        for layer in range(layers)
        for head in range(heads)
    }
    found = costs(outcomes(model, data, edits, reading)).reset_index(drop=True)
    told = pd.DataFrame(found.pop("edit").tolist(), columns=["by", "layer", "head"])
    return pd.concat([found, told], axis=1)


def chosen_costs(costs: pd.DataFrame, chosen: pd.DataFrame) -> pd.DataFrame:
    """What the heads chosen for a part cost: the part's own question, and for comparison others.

    Parameters
    ----------
    costs : of `head_costs`, of a data set whose classes settle questions about parts.
    chosen : a row for each model, mask (a part that is also a question) and image, with the layer
        and head that were chosen for it, as `cross_fit` gives it.

    Returns a row for each model, by, mask and image: own, the accuracy lost in the part's question;
    other_questions, the mean loss in the others about parts in `chosen`; other_heads, the mean loss
    in the part's question over all other heads.
    """
    parts = chosen["mask"].unique()
    keys = ["model", "by", "mask", "image"]
    asked = costs[costs.question.isin(parts)]
    of = chosen[["model", "mask", "image", "layer", "head"]].merge(
        asked, on=["model", "image", "layer", "head"]
    )
    is_own = of.question == of["mask"]
    own = of[is_own].groupby(keys).right.mean()
    every = asked.rename(columns={"question": "mask"}).groupby(keys).right.agg(["sum", "size"])
    rest = (every["sum"] - own) / (every["size"] - 1)
    found = {"own": own, "other_questions": of[~is_own].groupby(keys).right.mean()}
    return pd.DataFrame({**found, "other_heads": rest.loc[own.index]}).reset_index()


def rank_agreement(
    scores: pd.DataFrame,
    costs: pd.DataFrame,
    value: str = "average_precision",
    resamples: int = 1000,
    seed: int = 0,
) -> MeanInterval:
    """Spearman's rank correlation, over heads, of their mean scores and their mean costs.

    Parameters
    ----------
    scores : rows of one mask with image, layer, head and `value`, as of `head_scores`.
    costs : rows of one question and kind of ablation, as of `head_costs`; `margin` is taken.

    The 95 % interval is by resampling the images that both have. Raises ValueError for fewer than
    three heads or two images.
    """
    score = scores.pivot_table(index="image", columns=["layer", "head"], values=value).dropna()
    cost = costs.pivot_table(index="image", columns=["layer", "head"], values="margin")
    images, heads = score.index.intersection(cost.index), score.columns.intersection(cost.columns)
    if len(heads) < 3 or len(images) < 2:
        raise ValueError(
            f"{len(heads)} heads of {len(images)} images are in both; it takes three heads and two "
            "images"
        )
    drawn = np.random.default_rng(seed).multinomial(
        len(images), np.full(len(images), 1 / len(images)), resamples
    )
    weights = np.vstack([np.ones(len(images)), drawn])  # the images as they are come first
    means = (weights @ frame.loc[images, heads].to_numpy() for frame in (score, cost))
    ranks = [rankdata(each, axis=1) - (len(heads) + 1) / 2 for each in means]
    lengths = [np.linalg.norm(each, axis=1) for each in ranks]
    with np.errstate(invalid="ignore"):  # where all heads are alike there is no order: NaN
        found = (ranks[0] * ranks[1]).sum(1) / (lengths[0] * lengths[1])
    low, high = np.nanquantile(found[1:], [0.025, 0.975])
    return MeanInterval(float(found[0]), float(low), float(high))
