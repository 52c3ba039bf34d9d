"""Draw one layer of CRATE as the released code computes it: ``python layer.py OUT.svg``.

Black lines on no background, so that the dark theme can swap light for dark (see book.css); text
becomes outlines, so that it looks the same wherever the book is read.
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyBboxPatch, Polygon

INK, FAINT = "#222222", "#767676"
COMPRESS, SPARSIFY, MEASURE = "#3a56a8", "#b8601b", "#0b7a6b"

STYLE: dict = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "mathtext.fontset": "cm",
    "svg.fonttype": "path",
    "svg.hashsalt": "layer",  # the same drawing, byte for byte, at every build
}


def box(
    ax: Axes,
    x: float,
    y: float,
    w: float,
    label: str,
    color: str = INK,
    h: float = 8.4,
    size: float = 15,
) -> None:
    """Draw a rounded box around (x, y), with its label."""
    ax.add_patch(
        FancyBboxPatch(
            (x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=1.2",
            fc="white", ec=color, lw=1.4, zorder=3,
        )
    )  # fmt: skip
    ax.text(x, y - 0.1, label, ha="center", va="center", color=color, fontsize=size, zorder=4)


def tokens(ax: Axes, x: float, y: float, label: str, zeros: bool = False) -> None:
    """Draw a small matrix that stands for the tokens, a column each; empty cells are zeros."""
    full = "10100010010001001000" if zeros else "1" * 20
    cell, columns = 1.75, 4
    left, top = x - cell * columns / 2, y + cell * 5 / 2
    for i, mark in enumerate(full):
        row, column = divmod(i, columns)
        ax.add_patch(
            plt.Rectangle(
                (left + column * cell, top - (row + 1) * cell), cell, cell,
                fc="#9a9a9a" if mark == "1" else "white", ec=INK, lw=0.7, zorder=3,
            )
        )  # fmt: skip
    ax.text(x, y + 5.7, label, ha="center", va="bottom", color=INK, fontsize=16)


def sum_sign(ax: Axes, x: float, y: float) -> None:
    """Draw a circled plus."""
    ax.add_patch(Circle((x, y), 1.75, fc="white", ec=INK, lw=1.4, zorder=3))
    ax.plot([x - 1, x + 1], [y, y], color=INK, lw=1.4, zorder=4)
    ax.plot([x, x], [y - 1, y + 1], color=INK, lw=1.4, zorder=4)


def arrow(ax: Axes, *points: tuple[float, float], color: str = INK) -> None:
    """Draw a line through the points with a head at its end."""
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), color=color, lw=1.3, zorder=2,
                solid_joinstyle="round", solid_capstyle="round")  # fmt: skip
    ax.annotate(
        "", xy=points[-1], xytext=points[-2], zorder=2,
        arrowprops={"arrowstyle": "-|>,head_width=0.2,head_length=0.42", "lw": 1.3,
                    "color": color, "shrinkA": 0, "shrinkB": 0},
    )  # fmt: skip


def probe(ax: Axes, x: float, y: float, drop: float, label: str) -> None:
    """Draw a diamond where something is measured, and say below what."""
    size = 1.25
    ax.add_patch(
        Polygon([(x - size, y), (x, y + size), (x + size, y), (x, y - size)],
                fc=MEASURE, ec="white", lw=0.8, zorder=5)
    )  # fmt: skip
    ax.plot([x, x], [y - size, y - drop + 0.4], color=MEASURE, lw=1, ls=(0, (2, 2)), zorder=2)
    ax.text(x, y - drop, label, ha="center", va="top", color=MEASURE, linespacing=1.35)


def panel(ax: Axes, y: float, h: float, color: str, name: str, says: str) -> None:
    """Draw the frame of one half of the layer, with its name."""
    ax.add_patch(
        FancyBboxPatch((11.2, y), 76.3, h, boxstyle="round,pad=0,rounding_size=2",
                       fc="none", ec=color, lw=1.1, ls=(0, (4, 3)), zorder=1)
    )  # fmt: skip
    ax.text(13.2, y + h - 1.5, name, ha="left", va="top", color=color, weight="bold", fontsize=11.5)
    ax.text(85.6, y + h - 1.5, says, ha="right", va="top", color=color, fontsize=10.5)


def draw(ax: Axes) -> None:
    """Draw the layer on axes whose unit is a hundredth of the width."""
    top, bottom = 42.6, 12.0

    panel(ax, top - 14.2, 27.6, COMPRESS, "COMPRESS",
          "each token moves towards the tokens it resembles")  # fmt: skip
    tokens(ax, 5, top, r"$Z^{\ell}$")
    arrow(ax, (8.6, top), (14, top))
    box(ax, 17, top, 6, "LN", size=11.5)
    arrow(ax, (20, top), (26.8, top))
    for shift in (1.8, 0.9, 0):
        box(ax, 31 + shift, top + shift, 7.6, r"$U_k^{\top}$" if not shift else "", COMPRESS)
    for x, what in ((31.4, "$K$ heads"), (56.5, "average of the tokens,\nweighted by likeness"),
                    (74.2, "output\nmap")):  # fmt: skip
        ax.text(x, top - 5.0, what, ha="center", va="top", color=FAINT, fontsize=9.5,
                linespacing=1.3)  # fmt: skip
    arrow(ax, (36.8, top), (45, top))
    box(ax, 56.5, top, 23, r"$V_k\,\mathrm{softmax}(V_k^{\top}V_k/\sqrt{p})$", COMPRESS, size=14)
    ax.text(41, top + 1.1, r"$V_k$", ha="center", va="bottom", color=INK, fontsize=13)
    arrow(ax, (68, top), (71, top))
    box(ax, 74.2, top, 6.4, r"$W$", COMPRESS)
    arrow(ax, (77.4, top), (81.2, top))
    sum_sign(ax, 83, top)
    ax.plot([12.4, 12.4, 83], [top, top + 7.6, top + 7.6], color=INK, lw=1.3,
            solid_joinstyle="round", zorder=2)  # fmt: skip
    arrow(ax, (83, top + 7.6), (83, top + 1.8))
    arrow(ax, (84.8, top), (91.4, top))
    tokens(ax, 95, top, r"$Z^{\ell+1/2}$")
    probe(ax, 41, top, 9.0, "rate $R^c$, where the\nreleased code measures it")
    probe(ax, 95, top - 4.4, 3.0, "rate $R^c$, as\nthe paper\nlabels it")

    panel(ax, bottom - 10.4, 22.6, SPARSIFY, "SPARSIFY",
          "one step towards a sparse code in the dictionary $D$")  # fmt: skip
    middle = bottom + 14.2
    ax.plot([98.5, 102.6, 102.6, 5], [top, top, middle, middle], color=INK, lw=1.3, zorder=2,
            solid_joinstyle="round")  # fmt: skip
    arrow(ax, (5, middle), (5, bottom), (14, bottom))
    box(ax, 17, bottom, 6, "LN", size=11.5)
    arrow(ax, (20, bottom), (28.4, bottom))
    ax.text(24, bottom + 1.1, "$z$", ha="center", va="bottom", color=INK, fontsize=14)
    box(ax, 36, bottom, 15.2, r"$r = z - Dz$", SPARSIFY)
    arrow(ax, (43.6, bottom), (48, bottom))
    box(ax, 60, bottom, 24, r"$z + \eta D^{\!\top}r - \eta\lambda$", SPARSIFY)
    arrow(ax, (72, bottom), (75.4, bottom))
    box(ax, 80.4, bottom, 10, "ReLU", SPARSIFY, size=11.5)
    arrow(ax, (85.4, bottom), (91.4, bottom))
    tokens(ax, 95, bottom, r"$Z^{\ell+1}$", zeros=True)
    for x, what in ((36, "what $D$ leaves\nunexplained"), (60, "a gradient step,\nthen a shift"),
                    (80.4, "negative\nentries to zero")):  # fmt: skip
        ax.text(x, bottom - 5.0, what, ha="center", va="top", color=FAINT, fontsize=9.5,
                linespacing=1.3)  # fmt: skip
    probe(ax, 95, bottom - 4.4, 3.0, "share of\nnon-zero entries")


def main(out: Path) -> None:
    """Write the drawing to ``out``."""
    with plt.rc_context(STYLE):
        fig = plt.figure(figsize=(10.4, 5.6))
        ax = fig.add_axes((0, 0, 1, 1))
        ax.set(xlim=(0, 104), ylim=(1, 57), aspect="equal")
        ax.axis("off")
        draw(ax)
        fig.savefig(out, transparent=True, metadata={"Date": None})
        plt.close(fig)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
