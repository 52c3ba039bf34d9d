"""Generated pictures of animals with exact truth."""

from .chance import SPLITS
from .dataset import Creatures
from .scenes import CreatureScenes

__all__ = ["SPLITS", "CreatureScenes", "Creatures"]
