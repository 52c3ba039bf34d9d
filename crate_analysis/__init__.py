"""An open laboratory for white-box transformers."""

from importlib.metadata import PackageNotFoundError, version

from crate_analysis.datasets import load_dataset
from crate_analysis.models import build_model, list_models, load_model

try:
    __version__ = version("crate-analysis")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "unknown"

__all__ = ["build_model", "list_models", "load_dataset", "load_model"]
