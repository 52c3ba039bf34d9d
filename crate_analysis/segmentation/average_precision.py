"""How well found objects match the true ones: COCO's average precision, CorLoc, best overlap.

Objects are class-agnostic, as in Yu et al. 2024, Table 1. COCO's metric is computed by pycocotools.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pandas as pd

from crate_analysis.datasets import Samples
from crate_analysis.datasets.coco import encode, run_lengths

KINDS = {"box": "bbox", "mask": "segm"}
METRICS = {"AP50": slice(0, 1), "AP75": slice(5, 6), "AP": slice(0, 10)}
"""Of COCO's ten thresholds of IoU, 0.5 to 0.95."""
CORRECT = 0.5
"""The IoU from which a box counts as correct for CorLoc."""


def coco_average_precision(
    predictions: pd.DataFrame,
    dataset: Samples,
    resamples: int = 200,
    level: float = 0.95,
) -> pd.DataFrame:
    """COCO's average precision of boxes and masks, whatever their class, by pycocotools.

    Parameters
    ----------
    predictions : rows of `detect_objects`, of one layer.
    dataset : the pictures that they were found in, with a mask for each object. A list of its
        samples serves as well, and is not drawn or decoded anew each time. In a picture without
        objects every prediction is wrong.
    resamples : of the pictures, for the interval of confidence `level` (percentiles of the
        bootstrap): the metric belongs to a set of pictures and not to a single one.

    Returns a row for each kind (box, mask) and metric (AP50, AP75, AP): kind, metric, value, low,
    high, all in [0, 1]; the paper's numbers are a hundred times that.

    Raises ValueError for predictions of several layers or of pictures that the data set does not
    have, and for a data set without objects.
    """
    truth = _check(predictions, dataset)
    rows = []
    for kind, iou_type in KINDS.items():
        evaluation = _evaluate(truth, predictions, len(dataset), iou_type)
        matches = np.array(evaluation.evalImgs, dtype=object)
        values = _precision(evaluation)
        rng = np.random.default_rng(0)
        drawn = []
        for _ in range(resamples):
            evaluation.evalImgs = list(matches[rng.integers(len(matches), size=len(matches))])
            drawn.append(_precision(evaluation))
        tails = (1 - level) / 2
        low, high = np.nanquantile(drawn, [tails, 1 - tails], axis=0)
        for place, metric in enumerate(METRICS):
            rows.append((kind, metric, values[place], low[place], high[place]))
    return pd.DataFrame(rows, columns=["kind", "metric", "value", "low", "high"])


def best_overlaps(predictions: pd.DataFrame, dataset: Samples) -> pd.DataFrame:
    """For each picture with objects, how well the best predictions cover them.

    Arguments and errors are those of `coco_average_precision`. Columns: image; corloc, 1 where
    some predicted box has IoU of at least 0.5 with some true one, else 0 (Deselaers et al. 2010);
    box and mask, the mean over true objects of the best IoU that any prediction has with it.
    Where average precision is near zero these still tell systems apart.
    """
    truth = _check(predictions, dataset)
    found = dict(list(predictions.groupby("image")))
    nothing = predictions.iloc[:0]
    rle = run_lengths()
    rows = []
    for image, true in truth.groupby("image"):
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


def true_objects(dataset: Samples) -> pd.DataFrame:
    """The true objects in the form of predictions: image, bbox, segmentation and area (pixels)."""
    rle = run_lengths()
    rows = []
    for image in range(len(dataset)):
        for mask in dataset[image].masks:
            packed = encode(mask)
            rows.append((image, rle.toBbox(packed).tolist(), packed, int(mask.sum())))
    return pd.DataFrame(rows, columns=["image", "bbox", "segmentation", "area"])


def check_one_layer(objects: pd.DataFrame) -> None:
    """Raise ValueError where objects of several layers are mixed."""
    layers = sorted(objects.layer.unique().tolist())
    if len(layers) > 1:
        raise ValueError(
            f"objects of layers {layers} are given: choose one, such as frame[frame.layer == "
            f"{layers[-1]}]"
        )


def _check(predictions: pd.DataFrame, dataset: Samples) -> pd.DataFrame:
    check_one_layer(predictions)
    if len(predictions) and predictions.image.max() >= len(dataset):
        raise ValueError(
            f"predictions are of picture {predictions.image.max()}, but the data set has "
            f"{len(dataset)}: give the one that they were found in"
        )
    truth = true_objects(dataset)
    if truth.empty:
        raise ValueError(
            "the data set has no objects; take creatures-scenes, coco:ROOT or voc:ROOT"
        )
    return truth


def _evaluate(truth: pd.DataFrame, predictions: pd.DataFrame, count: int, iou_type: str) -> Any:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        objects = COCO()
        objects.dataset = {
            # run lengths know their own size, but the tool wants to see one
            "images": [{"id": image, "height": 0, "width": 0} for image in range(count)],
            "categories": [{"id": 1}],
            "annotations": _annotations(truth.assign(iscrowd=0)),
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
