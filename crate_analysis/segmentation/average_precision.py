"""How well found objects match the true ones: COCO's average precision, CorLoc, best overlap.

Objects are class-agnostic, as in Yu et al. 2024, Table 1. COCO's metric is computed by pycocotools.

What the truth leaves open counts against nobody. A crowd is no object, and a prediction that lies
in one is neither right nor wrong (COCO's `iscrowd`: its share inside must reach the threshold of
IoU). Void pixels count in no mask: predicted ones are cut down to the others, and one that lies in
void altogether is left out of the score of masks. Boxes know no void: the box of a seam is that of
the object within.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from crate_analysis.datasets import Samples, batches
from crate_analysis.datasets.coco import encode, run_lengths
from crate_analysis.measures.summary import design_interval

KINDS = {"box": "bbox", "mask": "segm"}
METRICS = {"AP50": slice(0, 1), "AP75": slice(5, 6), "AP": slice(0, 10)}
"""Of COCO's ten thresholds of IoU, 0.5 to 0.95."""
CORRECT = 0.5
"""The IoU from which a box counts as correct for CorLoc."""


@dataclass(frozen=True)
class TrueObjects:
    """What there is to find in the images of a data set: read once, and small.

    `sizes` has the height and width of each image that can be read, with objects or without, by
    its index in the data set. `objects` has a row for each object and each crowd, in the form of
    predictions: image, bbox, segmentation (COCO's run lengths), area (pixels) and iscrowd (0 or 1).
    `decided` has the run lengths of the pixels that are not void, for images with void.
    """

    sizes: dict[int, tuple[int, int]]
    objects: pd.DataFrame
    decided: dict[int, dict[str, Any]]

    def subset(self, images: Iterable[int]) -> TrueObjects:
        """Those of some images, which keep their indices; what is not in `sizes` stays out."""
        kept = self.sizes.keys() & set(images)
        return TrueObjects(
            {image: size for image, size in self.sizes.items() if image in kept},
            self.objects[self.objects.image.isin(kept)],
            {image: mask for image, mask in self.decided.items() if image in kept},
        )


def true_objects(dataset: Samples) -> TrueObjects:
    """The objects, crowds and void of a data set, decoded one image at a time.

    Images whose files are missing or damaged are left out, and listed by a warning: they count
    nowhere. Raises ValueError where none can be read.
    """
    rle = run_lengths()
    sizes, rows, decided = {}, [], {}
    for [image], [sample] in batches(dataset, 1):
        height, width = sample.image.shape[1:]
        sizes[image] = (height, width)
        for crowd, masks in enumerate((sample.masks, sample.crowds)):
            for mask in masks:
                packed = encode(mask)
                rows.append((image, rle.toBbox(packed).tolist(), packed, int(mask.sum()), crowd))
        if sample.void.any():
            decided[image] = encode(~sample.void)
    columns = ["image", "bbox", "segmentation", "area", "iscrowd"]
    return TrueObjects(sizes, pd.DataFrame(rows, columns=columns), decided)


def coco_average_precision(
    predictions: pd.DataFrame | Sequence[pd.DataFrame],
    dataset: Samples | TrueObjects,
    resamples: int = 200,
    orders: int = 20,
    level: float = 0.95,
) -> pd.DataFrame:
    """COCO's average precision of boxes and masks, whatever their class, by pycocotools.

    Parameters
    ----------
    predictions : rows of `detect_objects`, of one layer; or several such frames, one a training
        run of one design, for a statement on the design.
    dataset : the images that they were found in, with a mask for each object, or their
        `true_objects`, which need not be decoded anew each time. In an image without objects every
        prediction is wrong; one that cannot be read counts nowhere.
    resamples : of the images, for the interval of confidence `level`: the metric belongs to a set
        of images and not to a single one. Of one run it is that of percentiles of the bootstrap; of
        several, `design_interval` of the runs with the bootstrap's standard error of their mean.
    orders : predictions of equal score have no order, and the official tool takes them as they
        come. Here the metric is averaged over this many random orders of them (seeded); without
        equal scores it is the official one.

    Returns a row for each kind (box, mask) and metric (AP50, AP75, AP): kind, metric, value, low,
    high, all in [0, 1]; the paper's numbers are a hundred times that.

    Raises ValueError for predictions of several layers, of images that are not among these or that
    had another size, and for images without objects.
    """
    runs = [predictions] if isinstance(predictions, pd.DataFrame) else list(predictions)
    if not runs:
        raise ValueError("there are no predictions: give a frame, or a list of at least one")
    if orders < 1:
        raise ValueError(f"orders={orders} must be at least 1")
    truth = dataset if isinstance(dataset, TrueObjects) else true_objects(dataset)
    checked = [_check(run, truth)[1] for run in runs]
    rows = []
    for kind, iou_type in KINDS.items():
        found = [_resampled(truth, run, iou_type, resamples, orders) for run in checked]
        values = np.array([value for value, _ in found])  # (runs, metrics)
        drawn = np.mean([draws for _, draws in found], axis=0)  # (resamples, metrics)
        tails = (1 - level) / 2
        for place, metric in enumerate(METRICS):
            if len(runs) == 1:
                low, high = np.nanquantile(drawn[:, place], [tails, 1 - tails])
                rows.append((kind, metric, values[0, place], low, high))
            else:
                error, freedom = float(np.nanstd(drawn[:, place], ddof=1)), len(truth.sizes) - 1.0
                interval = design_interval(values[:, place], error, freedom, level)
                rows.append((kind, metric, *interval))
    return pd.DataFrame(rows, columns=["kind", "metric", "value", "low", "high"])


def _resampled(
    truth: TrueObjects, predictions: pd.DataFrame, iou_type: str, resamples: int, orders: int
) -> tuple[list[float], list[list[float]]]:
    """The metrics, averaged over orders of equal scores, and those of each draw of images.

    Every call with the same images draws the same ones.
    """
    rng = np.random.default_rng(0)
    within = predictions.duplicated(["image", "score"]).any()
    among = predictions.duplicated("score").any()
    shuffles = [predictions.sample(frac=1, random_state=seed) for seed in range(orders)]
    given = shuffles if within else [predictions]
    evaluations = [_evaluate(truth, one, iou_type) for one in given]
    matches = [np.array(evaluation.evalImgs, dtype=object) for evaluation in evaluations]
    evaluation = evaluations[0]

    def precision(place: int, images: NDArray[np.integer]) -> list[float]:
        evaluation.evalImgs = list(matches[place % len(matches)][images])
        return _precision(evaluation)

    count = len(matches[0])
    drawn = [precision(draw, rng.integers(count, size=count)) for draw in range(resamples)]
    if not among:
        return precision(0, np.arange(count)), drawn
    # the tool takes equal scores in the order of their images
    each = [precision(order, rng.permutation(count)) for order in range(orders)]
    return np.mean(each, axis=0).tolist(), drawn


def best_overlaps(predictions: pd.DataFrame, dataset: Samples | TrueObjects) -> pd.DataFrame:
    """For each image with objects, how well the best predictions cover them.

    Arguments and errors are those of `coco_average_precision`. Columns: image; corloc, 1 where
    some predicted box has IoU of at least 0.5 with some true one, else 0 (Deselaers et al. 2010);
    box and mask, the mean over true objects of the best IoU that any prediction has with it.
    Where average precision is near zero these still tell systems apart. Crowds are no objects.
    """
    truth, predictions = _check(predictions, dataset)
    found = dict(list(predictions.groupby("image")))
    nothing = predictions.iloc[:0]
    rle = run_lengths()
    rows = []
    for image, true in truth.objects[truth.objects.iscrowd == 0].groupby("image"):
        mine = found.get(image, nothing)
        overlap = {"box": np.zeros((1, len(true))), "mask": np.zeros((1, len(true)))}
        if len(mine):
            crowd = [0] * len(true)
            boxes = [np.array(list(frame.bbox), dtype=float) for frame in (mine, true)]
            overlap["box"] = rle.iou(*boxes, crowd)
            masks = [list(frame.segmentation) for frame in (mine, true)]
            overlap["mask"] = rle.iou(*masks, crowd)
        best = {kind: values.max(0) for kind, values in overlap.items()}
        correct = float(best["box"].max() >= CORRECT)
        rows.append((image, correct, best["box"].mean(), best["mask"].mean()))
    return pd.DataFrame(rows, columns=["image", "corloc", "box", "mask"])


def check_one_layer(objects: pd.DataFrame) -> None:
    """Raise ValueError where objects of several layers are mixed."""
    layers = sorted(objects.layer.unique().tolist())
    if len(layers) > 1:
        raise ValueError(
            f"objects of layers {layers} are given: choose one, such as frame[frame.layer == "
            f"{layers[-1]}]"
        )


def _check(
    predictions: pd.DataFrame, dataset: Samples | TrueObjects
) -> tuple[TrueObjects, pd.DataFrame]:
    """The truth, and the predictions with masks of decided pixels only."""
    check_one_layer(predictions)
    truth = dataset if isinstance(dataset, TrueObjects) else true_objects(dataset)
    if (truth.objects.iscrowd == 1).all():
        raise ValueError(
            "the data set has no objects; take creatures-scenes, coco:ROOT or voc-objects:ROOT"
        )
    rle = run_lengths()
    masks = []
    for image, mask in zip(predictions.image, predictions.segmentation, strict=True):
        size = truth.sizes.get(image)
        if size is None:
            raise ValueError(
                f"predictions are of image {image}, which is not among the {len(truth.sizes)} "
                "of the truth: give the images that they were found in"
            )
        if tuple(mask["size"]) != size:
            raise ValueError(
                f"predictions in image {image} are of {mask['size'][0]} x {mask['size'][1]} "
                f"pixels and the truth of {size[0]} x {size[1]}: load both with one image_size"
            )
        known = truth.decided.get(image)
        masks.append(rle.merge([mask, known], intersect=True) if known else mask)
    return truth, predictions.assign(segmentation=masks)


def _evaluate(truth: TrueObjects, predictions: pd.DataFrame, iou_type: str) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    if iou_type == "segm":
        sizes = [run_lengths().area(mask) for mask in predictions.segmentation]
        predictions = predictions[np.array(sizes, bool)]
    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = {
            "images": [
                {"id": image, "height": height, "width": width}
                for image, (height, width) in truth.sizes.items()
            ],
            "categories": [{"id": 1}],
            "annotations": _annotations(truth.objects),
        }
        objects.createIndex()
        found = COCO()
        found.dataset = {
            **objects.dataset,
            "annotations": _annotations(predictions.assign(iscrowd=0, area=1)),
        }
        found.createIndex()
        evaluation = COCOeval(objects, found, iou_type)
        evaluation.params.areaRng = evaluation.params.areaRng[:1]  # all sizes
        evaluation.params.areaRngLbl = ["all"]
        evaluation.params.maxDets = [100]
        evaluation.evaluate()
    return evaluation


def _annotations(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [name for name in frame.columns if name not in ("image", "layer")]
    return [
        {"id": number, "image_id": row.image, "category_id": 1}
        | {name: getattr(row, name) for name in columns}
        for number, row in enumerate(frame.itertuples(), 1)
    ]


def _precision(evaluation: Any) -> list[float]:
    """Each of METRICS: precision averaged over thresholds and over 101 levels of recall."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.accumulate()
    precision = evaluation.eval["precision"]
    chosen = [precision[thresholds] for thresholds in METRICS.values()]
    return [part[part > -1].mean() if (part > -1).any() else np.nan for part in chosen]
