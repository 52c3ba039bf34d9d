"""Objects that MaskCut finds in a whole data set: a run that may be killed, and goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from filelock import FileLock, Timeout
from jaxtyping import Bool, UInt8
from joblib import Parallel, delayed
from torch import Tensor

from crate_analysis.bars import bar
from crate_analysis.datasets import Sample, SampleDataset, Samples, as_samples
from crate_analysis.datasets.batches import attempts, report_left_out
from crate_analysis.datasets.coco import decode, encode, run_lengths
from crate_analysis.distributed import end_with_parent
from crate_analysis.fingerprints import describe, of_code, of_edits
from crate_analysis.models import Edit, UnrolledModel
from crate_analysis.names import digest, slug
from crate_analysis.probes.features import patch_keys
from crate_analysis.segmentation.average_precision import (
    best_overlaps,
    check_one_layer,
    true_objects,
)
from crate_analysis.segmentation.baselines import centre_attention, patch_ceiling, patch_grid
from crate_analysis.segmentation.maskcut import maskcut
from crate_analysis.segmentation.masks import to_pixels
from crate_analysis.walk import (
    Reading,
    check_layers,
    check_model,
    device_of,
    layer_states,
)
from crate_analysis.writing import DamagedFileError, seal, unseal, write_text

Refine = Callable[[Tensor, Tensor], Tensor]
"""From masks (k,H,W) bool and their image (3,H,W) uint8 to masks (k,H,W) bool."""
COLUMNS = ["image", "layer", "score", "bbox", "segmentation"]
READING = Reading(batch_size=8)


def detect_objects(
    model: UnrolledModel,
    dataset: Samples,
    folder: str | Path,
    layers: Sequence[int] = (-1,),
    n_masks: int = 3,
    tau: float = 0.15,
    refine: Refine | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """MaskCut on the patch features of each image (Yu et al. 2024, Sec. 3.2 and Table 1).

    All layers are read in one forward pass an image. Each image's objects are appended to a file
    as soon as they are found; a resumed run continues after the last complete line, and a finished
    one is only read. Images whose files are missing or damaged are left out, and listed by a
    warning.

    Parameters
    ----------
    dataset : a data set or its spec; images of one size, which the patch size divides; the paper
        takes 480 x 480.
    folder : where the results are kept, in a file `MODEL-DIGEST.jsonl`: what was asked for, then a
        line for each image. The digest is of all that was asked for, the model's weights, the
        images and the code of `maskcut` included, so that another request goes to another file.
        An empty `MODEL-DIGEST.jsonl.lock` beside it keeps two runs from writing at once.
    layers : from 0, or from the end when negative.
    n_masks, tau : of `maskcut`.
    refine : `refine_masks`, or another function of masks in pixels and their image that gives
        masks again; None, as the paper's Table 1, for none.
    reading : its `workers` read images, and as many processes cut, where it is two or more; with 0
        this one does both. With the model on a GPU all cuts are made here and run there.
    edits : what is changed on the way, see `walk`; they are part of what was asked for.

    Returns a frame with a row an object: image (index in the data set), layer (from 0), score
    (1 for the first mask of an image, 1/2, 1/3 for the next: MaskCut gives none, and the order in
    which it cuts is all it says), bbox ([x, y, width, height] in pixels) and segmentation (COCO's
    run lengths).

    Raises what `maskcut` raises, ValueError for a layer that does not exist and for a data set
    without images that can be read, and for an edit that has no fingerprint, RuntimeError where
    another run is writing the same file, and DamagedFileError for lines that are not as they were
    written.
    """
    cuts = _Cuts(check_layers(check_model(model), layers), n_masks, tau, refine)
    dataset = as_samples(dataset, image_size=model.config.image_size)
    settings = {
        **describe(model, dataset),
        "layers": cuts.layers,
        "n_masks": n_masks,
        "tau": tau,
        "refine": refine.__name__ if refine else None,
        "code": of_code(Path(__file__).with_name("maskcut.py")),
        **({"edits": of_edits(edits)} if edits else {}),
    }
    count = reading.count(dataset)
    header = seal(settings)
    with _open_results(Path(folder), model.name, header) as (file, done):
        records = _records(model, dataset, range(done, count), cuts, reading, edits)
        shown = bar(records, model.name, count, initial=done, shown=reading.progress)
        for place, record in enumerate(shown, done):
            file.write(_line(record, header, place))
            file.flush()
    return read_results(file.name, count)


def find_objects(
    model: UnrolledModel,
    dataset: Samples,
    layers: Sequence[int] = (-1,),
    n_masks: int = 3,
    tau: float = 0.15,
    refine: Refine | None = None,
    reading: Reading = READING,
    edits: Sequence[Edit] = (),
) -> pd.DataFrame:
    """`detect_objects` without a file: for a few images, for an edited network (see `walk`)."""
    cuts = _Cuts(check_layers(check_model(model), layers), n_masks, tau, refine)
    dataset = as_samples(dataset, image_size=model.config.image_size)
    images = range(reading.count(dataset))
    return _frame(list(_records(model, dataset, images, cuts, reading, edits)))


def layer_overlaps(
    model: UnrolledModel,
    dataset: Samples,
    layers: Sequence[int] | None = None,
    n_masks: int = 3,
    tau: float = 0.15,
    reading: Reading = READING,
) -> pd.DataFrame:
    """How well MaskCut covers the objects of each image, layer by layer, and beside it raw pixels.

    Arguments are those of `find_objects`; `layers` are by default all. Returns the columns of
    `best_overlaps` with `layer` before them, -1 for MaskCut on the raw pixels of the same patches.
    A layer whose features are cut nowhere has 0 for every image.
    """
    wanted = check_layers(check_model(model), layers)
    data = as_samples(dataset, image_size=model.config.image_size)
    truth = true_objects(data)
    found = find_objects(model, data, wanted, n_masks, tau, reading=reading)
    pixels = baseline_objects(data, model.config.patch_size, n_masks, tau, reading)
    found = pd.concat([found, pixels[pixels.model == "raw pixels"].drop(columns="model")])
    frames = []
    for layer in (*wanted, -1):
        overlaps = best_overlaps(found[found.layer == layer], truth)
        overlaps.insert(0, "layer", layer)
        frames.append(overlaps)
    return pd.concat(frames, ignore_index=True)


def baseline_objects(
    dataset: Samples,
    patch_size: int,
    n_masks: int = 3,
    tau: float = 0.15,
    reading: Reading = READING,
) -> pd.DataFrame:
    """What can be had without a network, and the most that patches allow.

    The frame of `detect_objects` with layer -1 and a column `model`: `raw pixels` (MaskCut on the
    centred pixels of each patch), `centre prior` (one ellipse in the middle, half as high and wide
    as the image) and `patch ceiling` (the truth itself on the patch grid). Images whose files
    are missing or damaged are left out, and listed by a warning. `reading` as in `detect_objects`.

    Raises ValueError where none can be read, and for images that `patch_size` does not divide.
    """
    jobs = (
        delayed(_baselines)(index, sample, patch_size, n_masks, tau)
        for [index], [sample] in replace(reading, batch_size=1).batches(as_samples(dataset))
    )
    found = Parallel(max(1, reading.workers), initializer=end_with_parent)(jobs)
    return pd.DataFrame([row for rows in found for row in rows], columns=["model", *COLUMNS])


def _baselines(
    index: int, sample: Sample, patch_size: int, n_masks: int, tau: float
) -> list[dict[str, Any]]:
    """An image's rows."""
    grid = patch_grid([sample], patch_size)
    pixels = F.pixel_unshuffle(sample.image.float(), patch_size).flatten(1).T
    centre = centre_attention(*grid) > math.exp(-1 / 2)  # within a deviation of a quarter
    cut = {
        "raw pixels": maskcut(pixels - pixels.mean(0), grid, n_masks, tau),
        "centre prior": centre[None],
        "patch ceiling": patch_ceiling(sample.masks[None], patch_size, sample.void[None])[0],
    }
    return [
        {"model": model, "image": index, "layer": -1, **one}
        for model, masks in cut.items()
        for one in _pack(to_pixels(masks, *sample.image.shape[1:]))
    ]


def read_results(path: str | Path, limit: int | None = None) -> pd.DataFrame:
    """The frame of `detect_objects` from its file, of the first `limit` images (default: all).

    A `LeftOutWarning` lists images that were left out. Raises DamagedFileError for a line that is
    not as it was written, or that is another file's.
    """
    return _frame(_read_lines(Path(path), Path(path).read_bytes())[:limit])


def _frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    left_out = [record["left_out"] for record in records if "left_out" in record]
    report_left_out(left_out, len(records))
    rows = [
        {"image": record["image"], "layer": int(layer), **found}
        for record in records
        for layer, objects in record["layers"].items()
        for found in objects
    ]
    return pd.DataFrame(rows, columns=COLUMNS).astype({"image": int, "layer": int, "score": float})


def write_coco_results(objects: pd.DataFrame, dataset: Samples, path: str | Path) -> None:
    """Write objects as a COCO result file, which the official tool reads: one layer's at a time.

    Masks and boxes are taken to each image's own size, and images are called by COCO's ids.
    All are of category 1: evaluate them with `useCats = 0`. Raises ValueError for several layers.
    """
    check_one_layer(objects)
    rle = run_lengths()
    dataset = as_samples(dataset)
    content = []
    for index in objects.image.unique().tolist():
        found = objects[objects.image == index]
        identity, height, width = dataset.coco_image(index)
        masks = torch.stack([decode(packed, *packed["size"]) for packed in found.segmentation])
        own = F.interpolate(masks[None].float(), (height, width), mode="nearest-exact")[0].bool()
        for mask, score in zip(own, found.score, strict=True):
            segmentation = encode(mask)
            content.append(
                {
                    "image_id": identity,
                    "category_id": 1,
                    "segmentation": segmentation,
                    "bbox": rle.toBbox(segmentation).tolist(),
                    "score": score,
                }
            )
    write_text(Path(path), json.dumps(content))


@contextmanager
def _open_results(folder: Path, model: str, header: str) -> Iterator[tuple[BinaryIO, int]]:
    """The file of what `header` asks for, no other run's meanwhile, and how many images it holds.

    A last line that is not complete is cut off.
    """
    path = folder / f"{slug(model)}-{digest([header.encode()])}.jsonl"  # model may be a path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        alone = FileLock(f"{path}.lock").acquire(blocking=False)
    except Timeout:
        raise RuntimeError(
            f"another run is writing {path}; wait until it has ended, or give another folder"
        ) from None
    with alone, path.open("a+b") as file:
        file.seek(0)
        text = file.read()
        complete = text.rfind(b"\n") + 1
        done = _read_lines(path, text[:complete], header) if complete else []
        file.truncate(complete)
        if not complete:
            file.write(header.encode() + b"\n")
        yield file, len(done)


def _line(record: dict[str, Any], header: str, place: int) -> bytes:
    """A line of the result file: it says of itself of which request and image it is."""
    return seal(record, f"{header} {place}").encode() + b"\n"


def _read_lines(path: Path, text: bytes, header: str | None = None) -> list[dict[str, Any]]:
    """What the lines of a result file say, each checked; `header` is what the first must be."""
    first, *lines = text.decode(errors="replace").split("\n")[:-1] or [""]
    records = []
    for number, line in enumerate([first, *lines], 1):
        try:
            if number == 1:
                if header not in (None, first):
                    raise ValueError("it is another request's")
                unseal(first)
            else:
                records.append(unseal(line, f"{first} {number - 2}"))
        except ValueError:
            remedy = f"delete the file, or its lines from {number} on, and run again"
            raise DamagedFileError(path, f"line {number}", remedy) from None
    return records


class _Job(NamedTuple):
    place: int
    image: UInt8[Tensor, "3 H W"]
    features: dict[int, Tensor]
    grid: tuple[int, int]


class _LeftOut(NamedTuple):
    place: int
    reason: str


class _Cuts(NamedTuple):
    """What is cut, and how."""

    layers: list[int]
    n_masks: int
    tau: float
    refine: Refine | None


def _records(
    model: UnrolledModel,
    dataset: SampleDataset,
    images: range,
    cuts: _Cuts,
    reading: Reading,
    edits: Sequence[Edit] = (),
) -> Iterator[dict[str, Any]]:
    """The lines of the result file, one an image, in order."""
    jobs = (
        delayed(dict)(image=image.place, layers={}, left_out=image.reason)
        if isinstance(image, _LeftOut)
        else delayed(_cut_image)(image, cuts)
        for image in _features(model, dataset, images, cuts.layers, reading, edits)
    )
    n_jobs = max(1, reading.workers) if device_of(model).type == "cpu" else 1
    return Parallel(n_jobs, return_as="generator", initializer=end_with_parent)(jobs)


def _features(
    model: UnrolledModel,
    dataset: SampleDataset,
    images: range,
    layers: list[int],
    reading: Reading,
    edits: Sequence[Edit],
) -> Iterator[_Job | _LeftOut]:
    """Each image's pixels, features by layer and patch grid, or why it has none."""
    tries = attempts(dataset, images, reading.workers, reading.batch_size)
    for first in images[:: reading.batch_size]:
        found = dict(enumerate(islice(tries, reading.batch_size), first))
        read = {index: one for index, one in found.items() if isinstance(one, Sample)}
        features: dict[int, Tensor] = {}
        if read:
            grid, features = _read(model, list(read.values()), layers, edits)
        rows = {index: row for row, index in enumerate(read)}
        for index, one in found.items():
            if isinstance(one, Sample):
                own = {layer: features[layer][rows[index]] for layer in layers}
                yield _Job(index, one.image, own, grid)
            else:
                yield _LeftOut(index, str(one))


@torch.inference_mode()
def _read(
    model: UnrolledModel, samples: list[Sample], layers: list[int], edits: Sequence[Any]
) -> tuple[tuple[int, int], dict[int, Tensor]]:
    grid, states = layer_states(model, samples, layers, edits)
    return grid, {state.index: patch_keys(state) for state in states}


def _cut_image(job: _Job, cuts: _Cuts) -> dict[str, Any]:
    """A line of the result file."""
    record: dict[str, Any] = {"image": job.place, "layers": {}}
    for layer, patches in job.features.items():
        found = maskcut(patches, job.grid, cuts.n_masks, cuts.tau)
        masks = to_pixels(found, *job.image.shape[1:])
        if cuts.refine is not None:
            masks = cuts.refine(masks, job.image)
        record["layers"][layer] = _pack(masks)
    return record


def _pack(masks: Bool[Tensor, "k H W"]) -> list[dict[str, Any]]:
    """Objects in COCO's form, scored by their rank; empty masks are none."""
    packed = [encode(mask) for mask in masks if mask.any()]
    return [
        {"score": 1 / rank, "bbox": run_lengths().toBbox(one).tolist(), "segmentation": one}
        for rank, one in enumerate(packed, 1)
    ]
