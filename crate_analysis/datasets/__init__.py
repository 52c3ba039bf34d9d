"""Data sets by name: generated creatures, and images on disk in the usual layouts."""

from .batches import batches, read_samples, stack_images
from .export import export_coco, export_voc
from .given import SampleList, as_samples
from .load import load_dataset
from .noise import Noise, NoisyImages, add_noise
from .sample import Sample, SampleDataset, Samples

__all__ = [
    "Noise",
    "NoisyImages",
    "Sample",
    "SampleDataset",
    "SampleList",
    "Samples",
    "add_noise",
    "as_samples",
    "batches",
    "export_coco",
    "export_voc",
    "load_dataset",
    "read_samples",
    "stack_images",
]
