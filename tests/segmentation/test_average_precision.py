"""Average precision of boxes and masks placed by hand, and as the official tool has it."""

import contextlib
import io
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from crate_analysis import load_dataset
from crate_analysis.datasets import Sample, SampleDataset, export_coco
from crate_analysis.datasets.coco import decode, encode, run_lengths
from crate_analysis.datasets.sample import UnreadableSampleError
from crate_analysis.measures import run_interval
from crate_analysis.segmentation import (
    baseline_objects,
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


def picture(*masks, crowds=(), **truth):
    planes, crowds = (
        torch.stack(list(m)) if m else torch.zeros(0, SIZE, SIZE, dtype=torch.bool)
        for m in (masks, crowds)
    )
    image = torch.zeros(3, SIZE, SIZE, dtype=torch.uint8)
    names = ("thing",) * len(masks)
    return Sample(image, None, planes, names, "by hand", crowds=crowds, **truth)


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
    # in an image without objects, too
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
    with pytest.raises(ValueError, match="of image 4, which is not among the 1"):
        coco_average_precision(predict((4, 1.0, A)), [picture(A)])
    for empty in (picture(), picture(crowds=[A])):
        with pytest.raises(ValueError, match="the data set has no objects"):
            best_overlaps(predict((0, 1.0, A)), [empty])
    with pytest.raises(ValueError, match="image 0 are of 20 x 20 pixels and the truth of 40 x"):
        best_overlaps(predict((0, 1.0, A[:20, :20])), [picture(A)])


def test_best_overlaps():
    shifted = box(5, 15, 7, 17)
    ring = B & ~box(22, 28, 22, 28)
    frame = best_overlaps(
        predict((0, 1.0, shifted), (0, 0.5, ring), (1, 1.0, B)),
        [picture(A, B), picture(A), picture(A), picture()],
    ).set_index("image")
    assert frame.index.tolist() == [0, 1, 2]  # image 3 has nothing to find
    assert frame.corloc.tolist() == [1, 0, 0]
    assert frame.box[0] == pytest.approx((2 / 3 + 1) / 2)
    assert frame["mask"][0] == pytest.approx((2 / 3 + 0.64) / 2)
    assert frame.loc[[1, 2], ["box", "mask"]].to_numpy().max() == 0


# --- equal scores, and several runs ---------------------------------------------------------------

WRONG = box(30, 40, 0, 10)


def ap50(predictions, dataset, **options):
    frame = coco_average_precision(predictions, dataset, resamples=5, **options)
    return frame.set_index(["kind", "metric"]).value["box", "AP50"]


@pytest.mark.parametrize("where", ["two images", "one image"])
def test_equal_scores_count_in_every_order(where):
    """Right before wrong scores 1, wrong before right 1/2; the order they come in says nothing."""
    dataset = [picture(A), picture()]
    right, wrong = (0, 1.0, A), (1 if where == "two images" else 0, 1.0, WRONG)
    found = [ap50(predict(*rows), dataset, orders=200) for rows in ((right, wrong), (wrong, right))]
    assert found == pytest.approx([0.75, 0.75], abs=0.05)
    turned = [picture(), picture(A)]
    rows = [(1 - image, score, mask) for image, score, mask in (right, wrong)]
    assert ap50(predict(*rows), turned, orders=200) == pytest.approx(0.75, abs=0.05)
    assert ap50(predict(right, (*wrong[:1], 0.5, WRONG)), dataset) == pytest.approx(1)


def test_the_same_numbers_every_time():
    rows = [(i, 1 / rank, mask) for i in range(6) for rank, mask in ((1, A), (2, WRONG))]
    frames = [coco_average_precision(predict(*rows), [picture(A, B)] * 6) for _ in range(2)]
    pd.testing.assert_frame_equal(*frames)


def test_several_runs_have_an_interval_over_runs_and_images():
    dataset = [picture(A)] * 12
    runs = [predict(*[(i, 1 - i / 100, A) for i in range(n)]) for n in (6, 7, 8)]
    [alone] = (
        coco_average_precision(runs[:1], dataset).query("kind == 'box' & metric == 'AP50'").value
    )
    assert alone == ap50(runs[0], dataset)
    frame = coco_average_precision(runs, dataset).set_index(["kind", "metric"])
    row = frame.loc["box", "AP50"]
    each = [ap50(run, dataset) for run in runs]
    assert row.value == pytest.approx(np.mean(each))
    narrow = run_interval(each)
    assert row.low < narrow.low < narrow.high < row.high
    everywhere = [predict(*[(i, 1 - i / 100, A) for i in range(12)])] * 3
    frame = coco_average_precision(everywhere, dataset)
    assert np.allclose(frame[["value", "low", "high"]], 1)
    with pytest.raises(ValueError, match="there are no predictions"):
        coco_average_precision([], dataset)
    with pytest.raises(ValueError, match="orders=0 must be at least 1"):
        coco_average_precision(runs, dataset, orders=0)


# --- what the truth leaves open -----------------------------------------------------------------


def test_a_prediction_in_a_crowd_is_neither_right_nor_wrong():
    """A is an object, and the right half of the image a crowd."""
    crowd = box(0, 40, 20, 40)
    inside, across, outside = box(5, 15, 25, 35), box(5, 15, 16, 26), box(25, 35, 0, 10)
    dataset = [picture(A, crowds=[crowd])]
    for wrong, expected in (
        ((inside, inside), 1.0),  # any number of them
        ((across,), 1.0),  # 60 % inside: at 0.5 it is
        ((outside,), 0.5),
        ((inside, outside), 0.5),
    ):
        found = values(predict(*[(0, 1.0, w) for w in wrong], (0, 0.5, A)), dataset)
        for kind in ("box", "mask"):
            assert found[kind, "AP50"] == pytest.approx(expected)
    # 60 % inside is too little at 0.65 and above: right at 3 thresholds, half at the others
    found = values(predict((0, 1.0, across), (0, 0.5, A)), dataset)
    assert found["mask", "AP"] == pytest.approx(0.3 + 0.7 * 0.5)
    assert found["mask", "AP75"] == pytest.approx(0.5)


def test_a_crowd_is_not_to_be_found():
    frame = best_overlaps(
        predict((0, 1.0, B), (1, 1.0, B)), [picture(A, crowds=[B]), picture(crowds=[B])]
    )
    assert frame.to_dict("list") == {"image": [0], "corloc": [0.0], "box": [0.0], "mask": [0.0]}
    found = values(predict((0, 1.0, A)), [picture(A, crowds=[B])])
    np.testing.assert_allclose(found, 1)


def test_void_pixels_count_in_no_mask():
    """Of B the rim of 2 pixels is void, which leaves 36 of its 100 pixels."""
    core = box(22, 28, 22, 28)
    dataset = [picture(core, void=B & ~core)]
    found = values(predict((0, 1.0, B)), dataset)
    assert found["mask", "AP"] == pytest.approx(1)  # 0 with void as background: IoU 0.36
    assert found["box", "AP50"] == 0  # boxes are as they are
    assert best_overlaps(predict((0, 1.0, B)), dataset)["mask"].tolist() == [1]
    # all in void: no mask to be right or wrong; partly in it: judged by the rest, here wrong
    rim, edge = box(20, 22, 20, 30), box(18, 22, 20, 30)
    after = values(predict((0, 1.0, rim), (0, 0.5, core)), dataset)["mask", "AP50"]
    assert after == pytest.approx(1)
    after = values(predict((0, 1.0, edge), (0, 0.5, core)), dataset)["mask", "AP50"]
    assert after == pytest.approx(0.5)


# --- the truth, read once -----------------------------------------------------------------------


class Pictures(SampleDataset):
    """Images made by hand; None stands for one whose files are damaged."""

    def __init__(self, *samples):
        self.samples, self.drawn = samples, []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.drawn.append(index)
        if self.samples[index] is None:
            raise UnreadableSampleError(f"image {index} is damaged: fetch it again")
        return self.samples[index]


def test_the_truth_serves_in_place_of_the_pictures():
    dataset = Pictures(picture(A, B), picture(crowds=[A]), picture(B))
    truth = true_objects(dataset)
    assert dataset.drawn == [0, 1, 2]
    predictions = predict((0, 1.0, A), (1, 0.7, B), (2, 0.5, B))
    for score in (coco_average_precision, best_overlaps):
        pd.testing.assert_frame_equal(score(predictions, truth), score(predictions, dataset))
    assert dataset.drawn == [0, 1, 2] * 3
    assert truth.sizes == {0: (SIZE, SIZE), 1: (SIZE, SIZE), 2: (SIZE, SIZE)}
    assert truth.objects.image.tolist() == [0, 0, 1, 2]
    assert truth.objects.iscrowd.tolist() == [0, 0, 1, 0]


def test_a_part_of_the_truth_keeps_its_indices():
    samples = [picture(A), picture(A, B), picture(), picture(B, void=A)]
    truth = true_objects(samples)
    predictions = predict((0, 1.0, B), (1, 1.0, A), (2, 1.5, A), (3, 0.5, B), (3, 0.4, A))
    later = predictions[predictions.image >= 1]
    shifted = later.assign(image=later.image - 1)
    part = truth.subset(range(1, 4))
    assert list(part.sizes) == [1, 2, 3]  # the one without objects, too
    for score in (coco_average_precision, best_overlaps):
        mine, whole = score(later, part), score(shifted, samples[1:])
        if "image" in mine:
            assert mine.image.tolist() == [1, 3]
            mine = mine.assign(image=mine.image - 1)
        pd.testing.assert_frame_equal(mine, whole)
    with pytest.raises(ValueError, match="of image 0, which is not among the 3"):
        coco_average_precision(predictions, part)
    assert list(truth.subset([1, 77]).sizes) == [1]


def test_a_damaged_picture_counts_nowhere_and_shifts_no_other():
    dataset = Pictures(picture(A), None, picture(B), picture())
    with pytest.warns(UserWarning, match=r"1 of 4 images were left out:\n  image 1 is damaged"):
        truth = true_objects(dataset)
    assert list(truth.sizes) == [0, 2, 3]
    predictions = predict((0, 1.0, A), (2, 1.0, B))
    assert (values(predictions, truth) == 1).all()
    assert best_overlaps(predictions, truth).image.tolist() == [0, 2]
    with pytest.warns(UserWarning, match="1 of 4 images"):
        found = baseline_objects(dataset, 4)
    ceiling = found[found.model == "patch ceiling"]
    assert ceiling.image.tolist() == [0, 2]


# --- as others have it --------------------------------------------------------------------------


class Crowded(SampleDataset):
    """Scenes whose last animal of each image is a crowd."""

    def __init__(self, scenes):
        for name in ("name", "split", "classes", "image_size", "seed"):
            setattr(self, name, getattr(scenes, name))
        self.scenes = scenes

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        sample = self.scenes[index]
        masks, crowds = sample.masks[:-1], sample.masks[-1:]
        return replace(
            sample, masks=masks, mask_names=sample.mask_names[:-1], part_of=(), crowds=crowds
        )


@pytest.mark.parametrize("crowded", [False, True])
def test_as_the_official_tool_reads_it(tmp_path, crowded):
    """From an exported data set and a result file, both at other sizes than ours."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    scenes = load_dataset("creatures-scenes", "dev", 64, limit=8)
    truth = true_objects(scenes).objects
    generator = torch.Generator().manual_seed(0)
    found = []
    for row in truth.itertuples():
        mask = decode(row.segmentation, 64, 64)
        top, left = torch.randint(0, 5, (2,), generator=generator).tolist()
        found.append((row.image, float(torch.rand((), generator=generator)),
                      mask.roll((top, left), (0, 1))))  # fmt: skip
    predictions = predict(*found)
    pictures = Crowded(scenes) if crowded else scenes
    export_coco(pictures, tmp_path, image_format="png", progress=False)
    write_coco_results(predictions, scenes, tmp_path / "results.json")
    with contextlib.redirect_stdout(io.StringIO()):
        official = COCO(tmp_path / "annotations" / "instances_dev2017.json")
        loaded = official.loadRes(str(tmp_path / "results.json"))
        assert len(official.getAnnIds(iscrowd=True)) == 8 * crowded
        mine = values(predictions, load_dataset(f"coco:{tmp_path}", "dev"))
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
