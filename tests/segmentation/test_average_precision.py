"""Average precision of boxes and masks placed by hand, and as the official tool has it."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pytest
import torch

from crate_analysis import load_dataset
from crate_analysis.datasets import Sample, export_coco
from crate_analysis.datasets.coco import decode, encode, run_lengths
from crate_analysis.segmentation import (
    best_overlaps,
    coco_average_precision,
    true_objects,
    write_coco_results,
)

SIZE = 40


def box(top, bottom, left, right):
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def picture(*masks):
    stacked = torch.stack(masks) if masks else torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
    image = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    return Sample(image, None, stacked, ("thing",) * len(masks), "by hand")


def predict(*found):
    """(image, score, mask) of each."""
    rows = [
        (image, 0, score, run_lengths().toBbox(encode(mask)).tolist(), encode(mask))
        for image, score, mask in found
    ]
    columns = ["image", "layer", "score", "bbox", "segmentation"]
    return pd.DataFrame(rows, columns=columns).astype({"image": int, "layer": int})


def values(predictions, dataset):
    frame = coco_average_precision(predictions, dataset, resamples=5)
    assert frame.columns.tolist() == ["kind", "metric", "value", "low", "high"]
    return frame.set_index(["kind", "metric"]).value


A, B = box(5, 15, 5, 15), box(20, 30, 20, 30)


def test_the_truth_itself_scores_one():
    found = values(predict((0, 1.0, A), (0, 0.5, B), (1, 1.0, B)), [picture(A, B), picture(B)])
    np.testing.assert_allclose(found, 1)


def test_a_shifted_box_counts_up_to_its_overlap():
    shifted = box(5, 15, 7, 17)  # IoU 80 / 120 = 2/3: right at 0.5, 0.55, 0.6 and 0.65
    found = values(predict((0, 1.0, shifted)), [picture(A)])
    for kind in ("box", "mask"):
        assert found[kind, "AP50"] == pytest.approx(1)
        assert found[kind, "AP75"] == 0
        assert found[kind, "AP"] == pytest.approx(0.4)


def test_masks_and_boxes_are_scored_apart():
    ring = A & ~box(7, 13, 7, 13)  # the box of A, and 64 of its 100 pixels
    found = values(predict((0, 1.0, ring)), [picture(A)])
    assert found["box", "AP"] == pytest.approx(1)
    assert found["mask", "AP"] == pytest.approx(0.3)  # 0.5, 0.55, 0.6


def test_wrong_ones_cost_where_they_come_first():
    wrong = box(30, 40, 0, 10)
    dataset = [picture(A)]
    after = values(predict((0, 1.0, A), (0, 0.5, wrong)), dataset)
    before = values(predict((0, 0.5, A), (0, 1.0, wrong)), dataset)
    assert after["box", "AP50"] == pytest.approx(1)
    assert before["box", "AP50"] == pytest.approx(0.5)
    # in a picture without objects, too
    elsewhere = values(predict((0, 0.5, A), (1, 1.0, wrong)), [picture(A), picture()])
    assert elsewhere["box", "AP50"] == pytest.approx(0.5)


def test_what_is_not_found_costs_recall():
    half = values(predict((0, 1.0, A)), [picture(A, B)])["box", "AP50"]
    assert half == pytest.approx(51 / 101)  # of 101 levels of recall, those up to a half
    assert (values(predict(), [picture(A)]) == 0).all()


def test_intervals_hold_the_value_and_widen_with_spread():
    same = [picture(A)] * 6
    frame = coco_average_precision(predict(*[(i, 1.0, A) for i in range(6)]), same)
    assert (frame.low == 1).all() and (frame.high == 1).all()
    frame = coco_average_precision(predict(*[(i, 1.0, A) for i in range(3)]), same)
    assert ((frame.low < frame.value) & (frame.value < frame.high)).all()


def test_wrong_requests():
    with pytest.raises(ValueError, match=r"layers \[0, 3\] are given"):
        frame = predict((0, 1.0, A), (0, 1.0, B)).assign(layer=[0, 3])
        coco_average_precision(frame, [picture(A)])
    with pytest.raises(ValueError, match="of picture 4, but the data set has 1"):
        coco_average_precision(predict((4, 1.0, A)), [picture(A)])
    with pytest.raises(ValueError, match="the data set has no objects"):
        best_overlaps(predict((0, 1.0, A)), [picture()])


def test_best_overlaps():
    shifted = box(5, 15, 7, 17)
    ring = B & ~box(22, 28, 22, 28)
    frame = best_overlaps(
        predict((0, 1.0, shifted), (0, 0.5, ring), (1, 1.0, B)),
        [picture(A, B), picture(A), picture(A), picture()],
    ).set_index("image")
    assert frame.index.tolist() == [0, 1, 2]  # picture 3 has nothing to find
    assert frame.corloc.tolist() == [1, 0, 0]
    assert frame.box[0] == pytest.approx((2 / 3 + 1) / 2)
    assert frame["mask"][0] == pytest.approx((2 / 3 + 0.64) / 2)
    assert frame.loc[[1, 2], ["box", "mask"]].to_numpy().max() == 0


def test_as_the_official_tool_reads_it(tmp_path):
    """From an exported data set and a result file, both at other sizes than ours."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    scenes = load_dataset("creatures-scenes", "dev", 64, limit=5)
    truth = true_objects(scenes)
    generator = torch.Generator().manual_seed(0)
    found = []
    for row in truth.itertuples():
        mask = decode(row.segmentation, 64, 64)
        top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
        found.append((row.image, float(torch.rand((), generator=generator)),
                      mask.roll((top, left), (0, 1))))  # fmt: skip
    predictions = predict(*found)
    export_coco(scenes, tmp_path, image_format="png", progress=False)
    write_coco_results(predictions, scenes, tmp_path / "results.json")
    with contextlib.redirect_stdout(io.StringIO()):
        official = COCO(tmp_path / "annotations" / "instances_dev2017.json")
        loaded = official.loadRes(str(tmp_path / "results.json"))
        mine = values(predictions, scenes)
        for kind, name in (("box", "bbox"), ("mask", "segm")):
            evaluation = COCOeval(official, loaded, name)
            evaluation.params.useCats = 0
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            expected = [evaluation.stats[k] for k in (1, 2, 0)]  # AP50, AP75, AP
            np.testing.assert_allclose(mine[kind].to_numpy(), expected)
            assert 0 < expected[2] < 1

    coco = load_dataset(f"coco:{tmp_path}", "dev", image_size=32)
    write_coco_results(predict((1, 1.0, box(5, 15, 5, 15)[:32, :32])), coco, tmp_path / "own.json")
    [content] = json.loads((tmp_path / "own.json").read_text())
    assert content["image_id"] == coco.coco_image(1)[0] and content["bbox"] == [10, 10, 20, 20]
