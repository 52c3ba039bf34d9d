"""How `make lab` runs JupyterLab: from the repository's root, and saving a chapter leaves no trace.

A chapter is saved as it is committed: without outputs, widgets and what the kernel calls itself,
and with the cells tagged `hide-input` collapsed, whichever were open. Executed copies, which are no
part of a pair, are saved as they are.
"""

import os
from pathlib import Path
from typing import Any

from jupyter_core.paths import jupyter_runtime_dir
from jupytext import AsyncTextFileContentsManager

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
KEPT = ("tags", "lines_to_next_cell")
"""What is kept of a cell's metadata: the tags, and how jupytext spaces the pair's other side."""


def tidy(model: dict[str, Any]) -> None:
    """Bring a notebook that is about to be saved into the form in which pairs are committed."""
    if model["type"] != "notebook" or "content" not in model:
        return
    metadata = model["content"]["metadata"]
    if "jupytext" not in metadata or "papermill" in metadata:
        return
    for name in ("language_info", "widgets"):
        metadata.pop(name, None)
    metadata["kernelspec"] = dict(KERNEL)
    for cell in model["content"]["cells"]:
        kept = {name: cell["metadata"][name] for name in KEPT if cell["metadata"].get(name)}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
            if "hide-input" in kept.get("tags", ()):
                kept["jupyter"] = {"source_hidden": True}
        cell["metadata"] = dict(sorted(kept.items()))


class Chapters(AsyncTextFileContentsManager):
    """jupytext's manager of pairs, which gets chapters as they are committed."""

    async def save(self, model: dict[str, Any], path: str = "") -> Any:
        """Save both sides of a pair."""
        tidy(model)
        return await super().save(model, path)


LONGEST = "kernel-" + "0" * 36 + "-ipc-5"
"""As long as the names of a kernel's sockets are."""

c = get_config()
if os.name == "posix" and len(os.fsencode(Path(jupyter_runtime_dir(), LONGEST))) < 100:
    c.KernelManager.transport = "ipc"  # no ports, on which kernels that start at once can meet
c.ServerApp.root_dir = str(Path(__file__).resolve().parents[1])
c.LabApp.news_url = None  # nothing is asked of other hosts
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.default_url = "/lab/tree/notebooks"
c.ServerApp.contents_manager_class = Chapters
