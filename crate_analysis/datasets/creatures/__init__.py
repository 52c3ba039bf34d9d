"""Generated pictures of animals with exact truth."""

from .dataset import Creatures

__all__ = ["Creatures"]
