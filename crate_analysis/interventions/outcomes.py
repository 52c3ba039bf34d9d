"""What edits do to what a network answers.

A *question* is one that the class settles: the class itself, and where the data set says what its
classes are made of (`bits`), each of these by itself. Its *margin* is log p(right) - log p(wrong),
where the probabilities of all classes that give the same answer are added: the log odds, in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_analysis.datasets import Samples, as_samples
from crate_analysis.interventions.edits import By, ablate_head
from crate_analysis.interventions.recording import Recording
from crate_analysis.models import Edit, LayerState, UnrolledModel
from crate_analysis.walk import READING, Reading, check_model, walk

CLASS = "class"
"""The question that every data set with labels asks."""
NO_EDIT = "none"
"""What the rows of the network as it is are called."""
COLUMNS = ["model", "edit", "image", "label", "question", "right", "margin"]

Measure = Callable[[LayerState], Tensor]


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
    edits: Mapping[str, Sequence[Edit]],
    reading: Reading = READING,
    measures: Mapping[str, Measure] | None = None,
) -> pd.DataFrame:
    """What a network answers with each list of edits, and without: `none`.

    Layers before the first that is edited are run once for all.

    Parameters
    ----------
    model, data, reading : as `walk` takes them; the data set's labels are the network's classes.
    edits : name -> edits that are made together.
    measures : name -> function of a `LayerState` giving one value an image; each is read in the
        first edited layer and in the last, of the network as it is in all layers.

    Returns a frame with a row for each edit, image and question: model, edit, image, label,
    question (`class`, or one of `questions_of`), right, margin (see above). With measures there are
    also rows of question `NAME@LAYER` (layer from 0), with the value for a margin and no `right`.
    Raises what `walk` raises, and ValueError for images without a label, a label that is no class
    of the network, no edits, and a name `none`.
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
        runs: Iterator[tuple[str, list[LayerState]]] = (
            (name, list(_from(model, plain, together))) for name, together in edits.items()
        )
        for name, states in ((NO_EDIT, plain), *runs):
            answers = answer(model.classify(states[-1].output), labels, asked)
            read = states if name == NO_EDIT else [states[0], states[-1]]
            for state in {state.index: state for state in read}.values():
                for measure, function in (measures or {}).items():
                    answers[f"{measure}@{state.index}"] = (None, function(state))
            parts.append(_rows(answers, name, batch.indices, labels))
    return pd.concat(parts, ignore_index=True).assign(model=model.name)[COLUMNS]


def _from(
    model: UnrolledModel, plain: list[LayerState], edits: Sequence[Edit]
) -> Iterator[LayerState]:
    first = min(model.layer_index(edit.layer) for edit in edits)
    return model.resume(plain[first].tokens, first, edits)


def answer(
    logits: Float[Tensor, "b c"], labels: Int64[Tensor, " b"], questions: Questions
) -> dict[str, tuple[Tensor | None, Tensor]]:
    """Question -> whether each image's answer is right, and by what margin."""
    logs = logits.double().log_softmax(-1)
    own = torch.arange(logs.shape[1], device=logs.device) == labels[:, None]
    found: dict[str, tuple[Tensor | None, Tensor]] = {
        CLASS: (logs.argmax(-1) == labels, _margin(logs, own))
    }
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
    answers: Mapping[str, tuple[Tensor | None, Tensor]],
    edit: str,
    images: Sequence[int],
    labels: Tensor,
) -> pd.DataFrame:
    frames = [
        pd.DataFrame(
            {
                "edit": edit,
                "image": images,
                "label": labels.cpu().numpy(),
                "question": question,
                "right": np.nan if right is None else right.cpu().numpy().astype(float),
                "margin": margin.detach().cpu().numpy(),
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
    image, and `margin` that of margin, in nats. Above 0 the edit does harm.
    """
    keys = ["model", "image", "question"]
    plain = frame[frame.edit == NO_EDIT].set_index(keys)
    edited = frame[frame.edit != NO_EDIT]
    before = plain.loc[pd.MultiIndex.from_frame(edited[keys])]
    lost = {name: before[name].to_numpy() - edited[name].to_numpy() for name in ("right", "margin")}
    return edited.assign(**lost)


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
    names = [(kind, layer, head) for kind in by for layer in range(layers) for head in range(heads)]
    edits = {
        f"{kind} {layer} {head}": [
            ablate_head(layer, head, kind, of if kind in ("mean", "resample") else None, seed)
        ]
        for kind, layer, head in names
    }
    found = costs(outcomes(model, data, edits, reading))
    told = found.pop("edit").str.split(" ", expand=True)
    return found.assign(by=told[0], layer=told[1].astype(int), head=told[2].astype(int))
