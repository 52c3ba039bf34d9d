"""An open laboratory for white-box transformers.

What a name needs is imported when the name is first asked for: ``import crate_analysis`` is cheap,
and so is the command line of anything that has to tell a mistake before torch is there.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crate_analysis.datasets import load_dataset
    from crate_analysis.models import build_model, list_models, load_model

    __version__: str

__all__ = ["build_model", "list_models", "load_dataset", "load_model"]

_HOMES = {
    "build_model": "models",
    "list_models": "models",
    "load_dataset": "datasets",
    "load_model": "models",
}


def __getattr__(name: str) -> Any:
    """A function of a submodule, a submodule, or the version (PEP 562)."""
    if name == "__version__":
        value: Any = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    elif name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    else:
        submodule = f"{__name__}.{name}"
        try:
            return import_module(submodule)
        except ModuleNotFoundError as error:
            if error.name != submodule:
                raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """With the names that were not asked for yet."""
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("crate-analysis")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"
