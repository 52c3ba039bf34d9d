"""A network under the reader's hand: the book's page *Look inside*, and a widget for JupyterLab."""

from __future__ import annotations

from crate_analysis.explorer.page import export_page, page_networks
from crate_analysis.explorer.widget import explore

__all__ = ["explore", "export_page", "page_networks"]
