"""Photographs that come with packages which are installed anyway."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch

from . import files
from .sample import Sample, SampleDataset


class Source(NamedTuple):
    """Where a photograph lies in an installed package, and who allows what."""

    package: str
    file: str
    install: str
    credit: str


_SKIMAGE, _SKLEARN = "pip install scikit-image", "pip install scikit-learn"
PHOTOGRAPHS = {
    "astronaut": Source("skimage", "data/astronaut.png", _SKIMAGE, "NASA, public domain"),
    "chelsea": Source("skimage", "data/chelsea.png", _SKIMAGE, "Stéfan van der Walt, CC0"),
    "coffee": Source("skimage", "data/coffee.png", _SKIMAGE, "Rachel Michetti, CC0"),
    "rocket": Source("skimage", "data/rocket.jpg", _SKIMAGE, "SpaceX, public domain"),
    "china": Source(
        "sklearn", "datasets/images/china.jpg", _SKLEARN, "danielbuechele, CC BY 2.0"
    ),
    "flower": Source("sklearn", "datasets/images/flower.jpg", _SKLEARN, "vultilion, CC BY 2.0"),
}  # fmt: skip
"""Name -> source, in the order of the data set. Authors and licences are those that the packages
state (docstrings of `skimage.data`, `README.txt` beside scikit-learn's images); the author of
`flower` is the owner of the page that is linked there."""


class Photographs(SampleDataset):
    """Six photographs of the packages scikit-image and scikit-learn, see `PHOTOGRAPHS`.

    An astronaut, a cat's face, a cup of coffee, a rocket's launch, a Chinese temple and a flower.
    There is one split, `val`, and there are no labels and no masks. With `image_size` they are
    resized by their shorter side and cropped to the middle. The files are read where the packages
    lie; none of their code is run. Raises ModuleNotFoundError for a package that is missing.
    """

    name = "photographs"
    classes = ()

    def __init__(self, split: str, image_size: int | None, limit: int | None, seed: int):
        if split != "val":
            raise FileNotFoundError(f"photographs have no split {split!r}, only 'val'")
        self.split = split
        self.image_size = image_size
        self.seed = seed
        names = list(PHOTOGRAPHS)
        self.names = [names[place] for place in files.subset(len(names), limit, seed)]
        self.paths = [_locate(name) for name in self.names]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[self.check(index)]
        image = files.to_tensor(files.crop(files.read_image(path), self.image_size))
        masks = torch.zeros((0, *image.shape[1:]), dtype=torch.bool)
        return Sample(image=image, label=None, masks=masks, mask_names=(), path=str(path))

    def files(self) -> Iterator[Path]:
        """The images."""
        return iter(self.paths)


def _locate(name: str) -> Path:
    """The file of a photograph; its package is found and not imported."""
    source = PHOTOGRAPHS[name]
    spec = find_spec(source.package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (path := Path(folder, source.file)).is_file():
            return path
    raise ModuleNotFoundError(
        f"the photograph {name!r} is in the package {source.package}, which is not installed or "
        f"holds no {source.file}: {source.install}, or take folder:ROOT"
    )
