"""What the page *Look inside* is made of: scripts, the shipped weights, images and their truth.

A page that is opened from a file may load nothing but scripts, images and styles. So weights and
images come as scripts that put base64 text into the page: the weights' files byte by byte, each
when its network is first chosen.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from crate_analysis.datasets import load_dataset
from crate_analysis.explorer.images import image_record, one_of_each, pixel_bytes
from crate_analysis.models import ModelConfig, load_model
from crate_analysis.models.zoo import shipped_files
from crate_analysis.plotting import heat, sheet
from crate_analysis.probes import cls_attention
from crate_analysis.writing import write_text

STATIC = Path(__file__).parent / "static"
SOURCES = ("network.js", "measures.js", "view.js", "page.js")
SCRIPTS = ("catalogue.js", *SOURCES)
"""The page's scripts, in the order in which it loads them; the first is written here."""
STYLE = "explorer.css"
STILL = "still.png"
FIRST = ("crate-creatures", "vit-creatures")
LEFT_OUT = r"-s\d+$|-dim64-"
"""Of networks that differ by their seed alone one is enough; narrow ones show little."""


def page_networks() -> list[str]:
    """The shipped networks that the page offers; with the first one the page begins.

    >>> page_networks()[:2]
    ['crate-creatures', 'vit-creatures']
    """
    names = [name for name in shipped_files() if not re.search(LEFT_OUT, name)]
    return sorted(names, key=lambda name: (name not in FIRST, name))


def export_page(folder: Path, networks: Sequence[str] | None = None, n_images: int = 12) -> None:
    """Write into `folder` all that the page needs: `SCRIPTS`, `STYLE`, `STILL`, and what they load.

    Parameters
    ----------
    networks : names of shipped models, by default `page_networks()`.
    n_images : for each data set, the first validation image of each class, as many classes.

    Raises what `load_model` and `load_dataset` raise.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     export_page(Path(folder), ["crate-creatures"], n_images=1)
    ...     sorted(path.name for path in Path(folder).glob("*-*"))
    ['images-creatures-72.js', 'network-crate-creatures.js']
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*SOURCES, STYLE):
        write_text(folder / name, (STATIC / name).read_text(encoding="utf-8"))
    catalogue: list[dict[str, Any]] = []
    for name in page_networks() if networks is None else networks:
        weights = shipped_files()[name]
        card = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        config = load_model(name).config
        images = _export_images(folder, card["settings"]["dataset"], config, n_images)
        _write_data(
            folder, f"network-{name}", base64.b64encode(weights.read_bytes()).decode("ascii")
        )
        classes = card["classes"] if config.num_classes else []
        catalogue.append(
            {
                "name": name,
                "title": title(name, card, config),
                "card": {"classes": classes, "images": images},
            }
        )
    text = json.dumps({"catalogue": catalogue}, separators=(",", ":"))
    write_text(folder / "catalogue.js", f"const EXPLORER={{data:{text}}};\n")
    draw_still(catalogue[0]["name"], folder / STILL)


def title(name: str, card: dict[str, Any], config: ModelConfig) -> str:
    """What the page calls a network."""
    if not config.num_classes:
        return f"{name}, learnt without labels"
    return f"{name}, {card['validation_accuracy']:.1%} right".replace("%", "\N{NO-BREAK SPACE}%")


def _export_images(folder: Path, spec: str, config: ModelConfig, n_images: int) -> str:
    """Write a data set's images for networks of one image size, once; the script's name."""
    name = f"images-{spec}-{config.image_size}"
    if not (folder / f"{name}.js").exists():
        dataset = load_dataset(spec, "val", config.image_size)
        records = [
            {
                **image_record(sample, dataset.classes),
                "pixels": base64.b64encode(pixel_bytes(sample.image)).decode("ascii"),
            }
            for sample in one_of_each(dataset, n_images)
        ]
        _write_data(folder, name, {"size": [config.image_size] * 2, "images": records})
    return name


def draw_still(name: str, path: Path) -> None:
    """What the page shows where no script runs: where `[CLS]` looks in every head of a network."""
    model = load_model(name)
    card = json.loads(shipped_files()[name].with_suffix(".json").read_text(encoding="utf-8"))
    sample = load_dataset(card["settings"]["dataset"], "val", model.config.image_size, limit=1)[0]
    size = (model.config.image_size, model.config.image_size)
    images = model.normalize(sample.image[None])
    with torch.inference_mode():
        maps = [cls_attention(model, images, layer)[0] for layer in range(model.config.depth)]
    tiles = [[heat(head.numpy(), size) for head in layer] for layer in maps]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7, 4), width_ratios=(1, 1.6), layout="constrained"
    )
    sheet([[sample.image.permute(1, 2, 0).numpy()]], ax=left)
    heads = [f"head {head + 1}" for head in range(model.config.heads)]
    sheet(tiles, heads, [f"layer {layer + 1}" for layer in range(len(tiles))], ax=right)
    figure.savefig(path, dpi=200)
    plt.close(figure)


def _write_data(folder: Path, name: str, value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"))
    write_text(folder / f"{name}.js", f"EXPLORER.data[{json.dumps(name)}]={text};\n")
