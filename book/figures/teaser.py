"""The image of the README: what the heads of two models attend to, on unselected images.

python book/figures/teaser.py book/_static/teaser.png
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from crate_analysis import load_dataset, load_model
from crate_analysis.datasets import stack_images
from crate_analysis.plotting import heat, sheet
from crate_analysis.probes import cls_attention

MODELS = {"crate-creatures": -2, "vit-creatures": -1}  # the layers that the paper takes
LABELS = {"crate": "CRATE", "vit": "ViT"}
N_IMAGES = 5


def draw(path: Path) -> None:
    """Write the first images of the validation split with every head's map beside them."""
    samples, columns = [], ["image"]
    lines: list[list] = [[] for _ in range(N_IMAGES)]
    for name, layer in MODELS.items():
        model = load_model(name)
        dataset = load_dataset("creatures", "val", model.config.image_size, N_IMAGES)
        samples = [dataset[index] for index in range(N_IMAGES)]
        images = model.normalize(stack_images(samples))
        maps = cls_attention(model, images, layer).numpy()
        columns += [f"{LABELS[model.config.family]}\nhead {k + 1}" for k in range(maps.shape[1])]
        for line, heads, sample in zip(lines, maps, samples, strict=True):
            height, width = sample.image.shape[1:]
            line.extend(heat(head, (height, width)) for head in heads)
    for line, sample in zip(lines, samples, strict=True):
        line.insert(0, sample.image.permute(1, 2, 0).numpy())
    figure, ax = plt.subplots(figsize=(9, 5.6), layout="constrained")
    sheet(lines, columns, ax=ax)
    part = path.with_suffix(".part.png")
    figure.savefig(part, dpi=110)
    part.replace(path)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
