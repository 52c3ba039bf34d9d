"""Twins: the same image with one part of its animal changed, and what carries the difference.

Where two images differ in one thing only, what is put from one run into the other (`patch`) can
carry that thing and nothing else: interchange interventions (Geiger et al. 2021, arXiv 2106.02997).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from crate_analysis.datasets import Sample, stack_images
from crate_analysis.datasets.creatures.mixed import MixedCreatures
from crate_analysis.interventions.edits import patch
from crate_analysis.interventions.outcomes import Questions, answer, questions_of
from crate_analysis.models import Edit, LayerState, UnrolledModel
from crate_analysis.walk import READING, Reading, check_model, device_of

COLUMNS = ["model", "part", "question", "layer", "what", "head", "image", "moved", "whole",
           "carried", "follows"]  # fmt: skip
TOKENS = ("its patches", "other patches", "[CLS]", "all patches")
"""Which tokens are put into the other run, see `carried`."""
HEAD = "head"


@torch.inference_mode()
def carried(
    model: UnrolledModel,
    dataset: MixedCreatures,
    parts: Sequence[str],
    what: Sequence[str] = (*TOKENS, HEAD),
    reading: Reading = READING,
    seed: int = 0,
) -> pd.DataFrame:
    """What of a twin's run has to be put into the image's for the answer to become the twin's.

    Parameters
    ----------
    model : one that was trained on the classes of `dataset`.
    dataset : one with twins, such as `creatures-parts`.
    parts : which part the twins differ in, one after another.
    what : what is put there, in each layer by itself. Of its `output`: ``its patches``, those in
        which the twins differ; ``other patches``, the control: as many others, of the animal
        first; ``[CLS]``; ``all patches``. Or ``head``: what one head hands on, head by head.
    seed : draws the control's patches.

    Returns a frame with a row for each part, image, layer (from 0), what, head (from 0, -1 for
    tokens) and question. `moved` is by how much the margin of the image's own answer fell, in nats;
    `whole`, by how much it falls from the image to its twin in the question about the part;
    `carried`, the first in units of the mean of the second, so that its mean over images is 0
    without effect and 1 for as much as the part itself does; `follows`, 1 where the answer is
    another than without, 0 where not. Images in which the part is not seen, and those where it is
    not told right in the image or in its twin, are left out, so that the frame may have no row.

    Raises TypeError for a data set without twins, and ValueError for a part that the classes do not
    tell and another `what`.

    It takes a network that tells the part, such as one trained by `params/experiments/labels.yml`:

    >>> from crate_analysis import load_dataset, load_model
    >>> dataset = load_dataset("creatures-parts", "val", 84, limit=40)
    >>> model = load_model("runs/labels/crate-parts/model.safetensors")  # doctest: +SKIP
    >>> frame = carried(model, dataset, ["ears"], what=["[CLS]"])  # doctest: +SKIP
    >>> sorted(frame.layer.unique())  # doctest: +SKIP
    [0, 1, 2, 3, 4, 5]
    """
    if not isinstance(dataset, MixedCreatures):
        raise TypeError("the data set has no twins, as creatures-parts and creatures-coats have")
    questions = questions_of(dataset)
    for part in [parts] if isinstance(parts, str) else parts:
        if part not in questions.names:
            raise ValueError(
                f"{part!r} is none of the parts that the classes tell: {', '.join(questions.names)}"
            )
    for one in set(what) - {*TOKENS, HEAD}:
        raise ValueError(f"what={one!r} is not one of {', '.join((*TOKENS, HEAD))}")
    check_model(model)
    frames = [_carried(model, dataset, part, what, questions, reading, seed) for part in parts]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    return pd.concat(frames, ignore_index=True).assign(model=model.name)[COLUMNS]


def _carried(
    model: UnrolledModel,
    dataset: MixedCreatures,
    part: str,
    what: Sequence[str],
    questions: Questions,
    reading: Reading,
    seed: int,
) -> pd.DataFrame:
    """The rows of one part."""
    frames = []
    for indices, samples in reading.batches(dataset, model.name):
        twins = [dataset.twin(index, part) for index in indices]
        labels = torch.tensor([sample.label for sample in samples], device=device_of(model))
        shown = _answers(model, samples, labels, questions)[part][0]
        turned = ~_answers(model, twins, labels, questions)[part][0]
        differ = _differ(samples, twins, model.config.patch_size)
        kept = (shown & turned & differ.any(1).to(labels.device)).nonzero().flatten().tolist()
        if not kept:
            continue
        pair = _Pair(
            model, [samples[n] for n in kept], [twins[n] for n in kept], labels[kept], questions
        )
        images = [indices[n] for n in kept]
        frames += pair.rows(part, what, differ[kept], images, seed)
    if not frames:
        return pd.DataFrame(columns=COLUMNS)
    frame = pd.concat(frames, ignore_index=True)
    whole = frame.drop_duplicates("image").whole.mean()
    return frame.assign(part=part, carried=frame.moved / whole)


class _Pair:
    """Some images and their twins in one network."""

    def __init__(
        self,
        model: UnrolledModel,
        samples: list[Sample],
        twins: list[Sample],
        labels: Int64[Tensor, " b"],
        questions: Questions,
    ) -> None:
        self.model, self.labels, self.questions = model, labels, questions
        self.animal = _covered(samples, model.config.patch_size)
        self.own, self.twin = (_states(model, one) for one in (samples, twins))

    def rows(
        self,
        part: str,
        what: Sequence[str],
        differ: Bool[Tensor, "b n"],
        images: list[int],
        seed: int,
    ) -> list[pd.DataFrame]:
        own, twin = (self._answer(states) for states in (self.own, self.twin))
        whole = (own[part][1] - twin[part][1]).cpu().numpy()
        frames = []
        for layer, name, head, edit in self._edits(what, differ, seed):
            states = list(self.model.resume(self.own[layer].tokens, layer, [edit]))
            for question, (right, margin) in self._answer(states).items():
                was_right, was = own[question]
                row = {
                    "question": question,
                    "layer": layer,
                    "what": name,
                    "head": head,
                    "image": images,
                    "moved": (was - margin).cpu().numpy(),
                    "whole": whole,
                    "follows": (right != was_right).cpu().numpy().astype(float),
                }
                frames.append(pd.DataFrame(row))
        return frames

    def _edits(
        self, what: Sequence[str], differ: Bool[Tensor, "b n"], seed: int
    ) -> Iterator[tuple[int, str, int, Edit]]:
        chosen = _tokens(differ, self.animal, self.model.patches.start, seed)
        for layer, twin in enumerate(self.twin):
            for name in what:
                if name == HEAD:
                    for head in range(self.model.config.heads):
                        yield (
                            layer,
                            HEAD,
                            head,
                            patch(layer, "head_outputs", twin.head_outputs, heads=head),
                        )
                else:
                    yield layer, name, -1, patch(layer, "output", twin.output, chosen[name])

    def _answer(self, states: list[LayerState]) -> dict[str, tuple[Tensor, Tensor]]:
        return answer(self.model.classify(states[-1].output), self.labels, self.questions)


def _states(model: UnrolledModel, samples: Sequence[Sample]) -> list[LayerState]:
    return list(model.unroll(model.normalize(stack_images(list(samples)).to(device_of(model)))))


def _answers(
    model: UnrolledModel, samples: Sequence[Sample], labels: Tensor, questions: Questions
) -> dict[str, tuple[Tensor, Tensor]]:
    logits = model.classify(_states(model, samples)[-1].output)
    return answer(logits, labels, questions)


def _tokens(
    differ: Bool[Tensor, "b n"], animal: Float[Tensor, "b n"], first: int, seed: int
) -> dict[str, Bool[Tensor, "b t"]]:
    """Which tokens are meant, for each of `TOKENS`; `first` is the first patch's."""
    generator = torch.Generator().manual_seed(seed)
    order = (animal + torch.rand(animal.shape, generator=generator)).masked_fill(differ, -1)
    rank = order.argsort(1, descending=True).argsort(1)
    other = (rank < differ.sum(1, keepdim=True)) & ~differ
    none, every = torch.zeros_like(differ), torch.ones_like(differ)
    found = {
        name: F.pad(patches, (first, 0))
        for name, patches in zip(TOKENS, (differ, other, none, every), strict=True)
    }
    found["[CLS]"][:, 0] = True
    return found


def _differ(samples: Sequence[Sample], twins: Sequence[Sample], patch: int) -> Bool[Tensor, "b n"]:
    """The patches in which any pixel differs."""
    pairs = zip(samples, twins, strict=True)
    pixels = torch.stack([(one.image != twin.image).any(0) for one, twin in pairs])
    return _cells(pixels, patch).any(-1)


def _covered(samples: Sequence[Sample], patch: int) -> Float[Tensor, "b n"]:
    """1 for the patches of which the animal covers at least half, else 0."""
    animals = torch.stack(
        [
            torch.stack(
                [m for m, whole in zip(s.masks, s.part_of, strict=True) if whole is None]
            ).any(0)
            for s in samples
        ]
    )
    return (_cells(animals, patch).float().mean(-1) >= 0.5).float()


def _cells(pixels: Bool[Tensor, "b H W"], patch: int) -> Bool[Tensor, "b n c"]:
    cells = pixels.unflatten(2, (-1, patch)).unflatten(1, (-1, patch))
    return cells.transpose(2, 3).flatten(3).flatten(1, 2)
