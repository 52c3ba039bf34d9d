"""IoU and average precision in JavaScript against the library's."""

from __future__ import annotations

import numpy as np
import torch

from crate_analysis import load_dataset, load_model
from crate_analysis.datasets import as_samples
from crate_analysis.explorer.images import image_record, one_of_each, pixel_bytes, run_lengths
from crate_analysis.probes import cls_attention
from crate_analysis.segmentation import attention_mask, average_precision, head_iou, to_pixels

MEASURE = """([maps, truths, area]) => maps.map((map) => truths.map((truth) => {
  const values = Float32Array.from(map);
  const mask = exploreMeasures.massMask(values);
  const precision = exploreMeasures.averagePrecision(values, truth, area);
  return [exploreMeasures.iou(mask, truth, area), precision, Array.from(mask)];
}))"""


def measure(page, maps, masks):
    """IoU and AP (h, m) and masks (h, n) by the page; NaN comes back as None."""
    grid, (height, width) = maps.shape[-2:], masks.shape[-2:]
    truth = masks.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).sum((2, 4)).flatten(1)
    area = height * width / (grid[0] * grid[1])
    found = page.evaluate(MEASURE, [maps.flatten(1).tolist(), truth.tolist(), area])
    iou, ap = (np.array([[cell[i] for cell in row] for row in found], float) for i in (0, 1))
    return iou, ap, torch.tensor([row[0][2] for row in found], dtype=torch.bool)


def check(page, maps, masks):
    iou, ap, kept = measure(page, maps, masks)
    wanted = attention_mask(maps)
    assert torch.equal(kept, wanted.flatten(1))
    height, width = masks.shape[-2:]
    known = head_iou(to_pixels(wanted, height, width)[None], masks[None])[0]
    np.testing.assert_allclose(iou, known, atol=1e-6)
    grid = maps.shape[-2:]
    cells = masks.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).sum((2, 4)).flatten(1)
    pixels = torch.full((1, cells.shape[1]), height * width / cells.shape[1])
    known = average_precision(maps.flatten(1)[None], cells[None].float(), pixels)[0]
    np.testing.assert_allclose(ap, known, atol=1e-6)


def test_our_images(scripts):
    sample = load_dataset("creatures", "val", 72)[5]
    model = load_model("crate-creatures")
    for layer in range(6):
        check(
            scripts,
            cls_attention(model, model.normalize(sample.image[None]), layer)[0],
            sample.masks,
        )


def test_ties_flat_maps_and_empty_masks(scripts):
    torch.manual_seed(0)
    maps = torch.cat(
        [
            torch.randint(0, 4, (3, 6, 4)) / 8,  # many ties
            torch.ones(1, 6, 4) / 24,
            torch.eye(24)[:1].view(1, 6, 4),
        ]
    )
    masks = torch.rand(4, 18, 8) > torch.tensor([0.2, 0.5, 0.9, 2.0])[:, None, None]
    masks[0] = True
    check(scripts, maps, masks)


def test_by_hand(scripts):
    """Half of the mass on one patch of four, which is half in the mask: worked out on paper."""
    maps = torch.tensor([[[0.5, 0.3], [0.2, 0.0]]])
    masks = torch.zeros(1, 4, 4, dtype=torch.bool)
    masks[0, :2, 0] = True  # half of the first patch
    iou, ap, kept = measure(scripts, maps, masks)
    assert kept.tolist() == [[True, True, False, False]]  # 0.5 is less than 60 %, 0.8 is more
    assert iou == 2 / 8
    assert ap == 2 / 4


def test_run_lengths_give_the_mask_back():
    masks = torch.rand(5, 7, 9) > torch.tensor([-1, 0.1, 0.5, 0.9, 2])[:, None, None]
    for mask in masks:
        runs = run_lengths(mask)
        values = [place % 2 == 1 for place, run in enumerate(runs) for _ in range(run)]
        assert values == mask.flatten().tolist()


def test_images_are_one_of_each_label_first():
    dataset = load_dataset("creatures", "val", 72)
    chosen = one_of_each(dataset, 12)
    assert sorted(sample.label for sample in chosen) == list(range(12))
    record = image_record(chosen[0], dataset.classes)
    assert record["name"] == dataset.classes[chosen[0].label]
    assert [mask["name"] for mask in record["masks"]] == list(chosen[0].mask_names)
    pixels = np.frombuffer(pixel_bytes(chosen[0].image), np.uint8).reshape(72, 72, 3)
    assert (pixels[5, 7] == chosen[0].image[:, 5, 7].numpy()).all()


def test_images_without_labels_or_enough_of_them():
    samples = as_samples([load_dataset("creatures", "val", 72)[i] for i in range(3)])
    assert len(one_of_each(samples, 12)) == 3
    scenes = load_dataset("creatures-scenes", "val", 48, limit=5)
    assert [sample.path for sample in one_of_each(scenes, 2)] == [scenes[0].path, scenes[1].path]
