"""Objects that MaskCut finds in a whole data set: a run that may be killed, and goes on."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
from tqdm import tqdm

from crate_analysis.datasets import Sample, SampleDataset, Samples, batches, stack_images
from crate_analysis.datasets.batches import attempts, report_left_out
from crate_analysis.datasets.coco import decode, encode, run_lengths
from crate_analysis.fingerprints import describe, digest, of_code
from crate_analysis.models import UnrolledModel
from crate_analysis.models.unrolled import merge_heads
from crate_analysis.probes.collect import check_layer
from crate_analysis.segmentation.average_precision import check_one_layer
from crate_analysis.segmentation.baselines import centre_attention, patch_ceiling
from crate_analysis.segmentation.evaluation import patch_grid
from crate_analysis.segmentation.maskcut import maskcut
from crate_analysis.segmentation.masks import to_pixels
from crate_analysis.writing import write_text

Refine = Callable[[Tensor, Tensor], Tensor]
"""From masks (k,H,W) bool and their picture (3,H,W) uint8 to masks (k,H,W) bool."""
COLUMNS = ["image", "layer", "score", "bbox", "segmentation"]


def detect_objects(
    model: UnrolledModel,
    dataset: SampleDataset,
    folder: str | Path,
    layers: Sequence[int] = (-1,),
    n_masks: int = 3,
    tau: float = 0.15,
    refine: Refine | None = None,
    batch_size: int = 8,
    workers: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """MaskCut on the patch features of each picture (Yu et al. 2024, Sec. 3.2 and Table 1).

    All layers are read in one forward pass a picture. Each picture's objects are appended to a
    file as soon as they are found; a run that was killed goes on behind the last whole line, and a
    finished one is only read. Pictures whose files are missing or damaged are left out, and listed
    by a warning.

    Parameters
    ----------
    dataset : pictures of one size, which the patch size divides; the paper takes 480 x 480.
    folder : where the results are kept, in a file `MODEL-DIGEST.jsonl`: what was asked for, then a
        line for each picture. The digest is of all that was asked for, the model's weights, the
        pictures and the code of `maskcut` included, so that another request goes to another file.
        An empty `MODEL-DIGEST.jsonl.lock` beside it keeps two runs from writing at once.
    layers : from 0, or from the end when negative.
    n_masks, tau : of `maskcut`.
    refine : `refine_masks`, or another function of masks in pixels and their picture that gives
        masks again; None, as the paper's Table 1, for none.
    workers : processes that read pictures, see `batches`, and as many that cut, where it is two or
        more; 0 for this one, in which the model runs. With the model on a GPU all cuts are made
        here and run there.

    Returns a frame with a row an object: image (index in the data set), layer (from 0), score
    (1 for the first mask of a picture, 1/2, 1/3 for the next: MaskCut gives none, and the order in
    which it cuts is all it says), bbox ([x, y, width, height] in pixels) and segmentation (COCO's
    run lengths).

    Raises what `maskcut` raises, ValueError for a layer that does not exist and for a data set
    without pictures that can be read, and RuntimeError where another run is writing the same file.
    """
    wanted = [check_layer(model, layer) for layer in layers]
    settings = {
        **describe(model, dataset),
        "layers": wanted,
        "n_masks": n_masks,
        "tau": tau,
        "refine": refine.__name__ if refine else None,
        "code": of_code(Path(__file__).with_name("maskcut.py")),
    }
    with _open_results(Path(folder), settings) as (file, done):
        pictures = range(done, len(dataset))
        records = _records(
            model, dataset, pictures, wanted, n_masks, tau, refine, batch_size, workers
        )
        for record in tqdm(
            records,
            model.name,
            len(dataset),
            initial=done,
            unit="picture",
            disable=not progress,
        ):
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
    return read_results(file.name)


def find_objects(
    model: UnrolledModel,
    dataset: SampleDataset,
    layers: Sequence[int] = (-1,),
    n_masks: int = 3,
    tau: float = 0.15,
    refine: Refine | None = None,
    batch_size: int = 8,
    workers: int = 0,
) -> pd.DataFrame:
    """`detect_objects` without a file: for a few pictures, or for who keeps them elsewhere."""
    wanted = [check_layer(model, layer) for layer in layers]
    pictures = range(len(dataset))
    return _frame(
        list(_records(model, dataset, pictures, wanted, n_masks, tau, refine, batch_size, workers))
    )


def baseline_objects(
    dataset: Samples,
    patch_size: int,
    n_masks: int = 3,
    tau: float = 0.15,
    workers: int = 0,
) -> pd.DataFrame:
    """What can be had without a network, and the most that patches allow.

    The frame of `detect_objects` with layer -1 and a column `model`: `raw pixels` (MaskCut on the
    centred pixels of each patch), `centre prior` (one ellipse in the middle, half as high and wide
    as the picture) and `patch ceiling` (the truth itself on the patch grid). Pictures whose files
    are missing or damaged are left out, and listed by a warning. `workers` as in `detect_objects`.

    Raises ValueError where none can be read, and for pictures that `patch_size` does not divide.
    """
    jobs = (
        delayed(_baselines)(index, sample, patch_size, n_masks, tau)
        for [index], [sample] in batches(dataset, 1, workers=workers)
    )
    found = Parallel(max(1, workers))(jobs)
    return pd.DataFrame([row for rows in found for row in rows], columns=["model", *COLUMNS])


def _baselines(
    index: int, sample: Sample, patch_size: int, n_masks: int, tau: float
) -> list[dict[str, Any]]:
    """A picture's rows."""
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


def read_results(path: str | Path) -> pd.DataFrame:
    """The frame of `detect_objects` from its file; a `LeftOutWarning` lists pictures left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()[1:]
    return _frame([json.loads(line) for line in lines])


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


def write_coco_results(objects: pd.DataFrame, dataset: SampleDataset, path: str | Path) -> None:
    """Write objects as a COCO result file, which the official tool reads: one layer's at a time.

    Masks and boxes are taken to each picture's own size, and pictures are called by COCO's ids.
    All are of category 1: evaluate them with `useCats = 0`. Raises ValueError for several layers.
    """
    check_one_layer(objects)
    rle = run_lengths()
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
def _open_results(folder: Path, settings: dict[str, Any]) -> Iterator[tuple[BinaryIO, int]]:
    """The file of these settings, no other run's meanwhile, and how many pictures it holds.

    Half a last line is cut off.
    """
    header = json.dumps(settings).encode()
    stem = re.sub(r"[^\w.-]+", "-", settings["model"])  # a model may be called by its path
    path = folder / f"{stem}-{digest([header])}.jsonl"
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
        lines = text.count(b"\n")
        file.truncate(text.rfind(b"\n") + 1)
        if not lines:
            file.write(header + b"\n")
        yield file, max(0, lines - 1)


class _Job(NamedTuple):
    place: int
    image: UInt8[Tensor, "3 H W"]
    features: dict[int, Tensor]
    grid: tuple[int, int]


class _LeftOut(NamedTuple):
    place: int
    reason: str


def _records(
    model: UnrolledModel,
    dataset: SampleDataset,
    pictures: range,
    layers: list[int],
    n_masks: int,
    tau: float,
    refine: Refine | None,
    batch_size: int,
    workers: int,
) -> Iterator[dict[str, Any]]:
    """The lines of the result file, one a picture, in order."""
    jobs = (
        delayed(dict)(image=picture.place, layers={}, left_out=picture.reason)
        if isinstance(picture, _LeftOut)
        else delayed(_cut_picture)(*picture, n_masks, tau, refine)
        for picture in _features(model, dataset, pictures, layers, batch_size, workers)
    )
    on_cpu = next(model.parameters()).device.type == "cpu"
    return Parallel(max(1, workers) if on_cpu else 1, return_as="generator")(jobs)


def _features(
    model: UnrolledModel,
    dataset: SampleDataset,
    pictures: range,
    layers: list[int],
    batch_size: int,
    workers: int,
) -> Iterator[_Job | _LeftOut]:
    """Each picture's index, pixels, features by layer and patch grid, or why it has none."""
    tries = attempts(dataset, pictures, workers, batch_size)
    for first in pictures[::batch_size]:
        found = dict(enumerate(islice(tries, batch_size), first))
        read = {index: one for index, one in found.items() if isinstance(one, Sample)}
        if read:
            images = stack_images(list(read.values()))
            normed = model.normalize(images)
            features = _read(model, normed, layers)
            grid = model.patch_grid(normed)
        rows = {index: row for row, index in enumerate(read)}
        for index, one in found.items():
            if index in rows:
                row = rows[index]
                own = {layer: each[row] for layer, each in features.items()}
                yield _Job(index, images[row], own, grid)
            else:
                yield _LeftOut(index, str(one))


@torch.inference_mode()
def _read(model: UnrolledModel, normed: Tensor, layers: list[int]) -> dict[int, Tensor]:
    device = next(model.parameters()).device
    found = {}
    for state in model.unroll(normed.to(device)):
        if state.index in layers:
            found[state.index] = merge_heads(state.projections)[:, model.patches]
        if state.index == max(layers):
            break
    return found


def _cut_picture(
    index: int,
    image: UInt8[Tensor, "3 H W"],
    features: dict[int, Tensor],
    grid: tuple[int, int],
    n_masks: int,
    tau: float,
    refine: Refine | None,
) -> dict[str, Any]:
    """A line of the result file."""
    record: dict[str, Any] = {"image": index, "layers": {}}
    for layer, patches in features.items():
        masks = to_pixels(maskcut(patches, grid, n_masks, tau), *image.shape[1:])
        if refine is not None:
            masks = refine(masks, image)
        record["layers"][layer] = _pack(masks)
    return record


def _pack(masks: Bool[Tensor, "k H W"]) -> list[dict[str, Any]]:
    """Objects in COCO's form, scored by their rank; empty masks are none."""
    packed = [encode(mask) for mask in masks if mask.any()]
    return [
        {"score": 1 / rank, "bbox": run_lengths().toBbox(one).tolist(), "segmentation": one}
        for rank, one in enumerate(packed, 1)
    ]
