"""Generated images of animals with exact truth."""

from .animal import PARTS
from .chance import SPLITS
from .dataset import Creatures, ExoticCreatures, RestagedCreatures
from .mixed import CoatCreatures, PartCreatures, WidePartCreatures
from .scenes import CreatureScenes

__all__ = [
    "PARTS",
    "SPLITS",
    "CoatCreatures",
    "CreatureScenes",
    "Creatures",
    "ExoticCreatures",
    "PartCreatures",
    "RestagedCreatures",
    "WidePartCreatures",
]
