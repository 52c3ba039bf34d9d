"""The claims that this laboratory puts to the test, as data, and the rule of the verdict.

A chapter's finding names the claim that it decides; `verdicts.judge` brings the findings of a whole
folder of runs together. The claims are those of Yu et al. 2023 (arXiv 2306.01129) and Yu et al.
2024 (arXiv 2308.16271), and some of our own that they lead to.
"""

from __future__ import annotations

from dataclasses import dataclass

HOLDS, IN_PART, NOT_HERE, UNCLEAR, MISSING = (
    "holds",
    "holds in part",
    "not here",
    "cannot be told here",
    "not measured in this run",
)
RULE = (
    "A finding *holds* where its whole 95 % interval lies on the side of its rival that the claim "
    "expects, *fails* where it lies on the other side, and is *open* where the interval contains "
    f"the rival. A claim **{HOLDS}** where all its findings hold, **{IN_PART}** where some do; it "
    f"is **{NOT_HERE}** where none holds and one fails, and **{UNCLEAR}** where all are open."
)
"""The rule, declared before the runs, in words."""


@dataclass(frozen=True)
class Claim:
    """One claim: what is said, by whom, the number they print, and the chapter that tests it."""

    name: str
    says: str
    source: str
    paper: str
    chapter: str


_YU23, _YU24, _OURS = "Yu et al. 2023", "Yu et al. 2024", "this book"

CLAIMS = {
    claim.name: claim
    for claim in (
        Claim(
            "compression",
            "Attention compresses: the coding rate R^c of the tokens falls from layer to layer.",
            f"{_YU23}, layer-wise figures",
            "curves that fall",
            "02-compression",
        ),
        Claim(
            "sparsification",
            "ISTA sparsifies: the non-zero share of the tokens falls from layer to layer.",
            f"{_YU23}, layer-wise figures",
            "curves that fall",
            "02-compression",
        ),
        Claim(
            "steps",
            "An attention layer takes a gradient step on R^c.",
            f"{_YU23}, Sec. 2.3",
            "a derivation, no number",
            "03-steps",
        ),
        Claim(
            "dictionary",
            "Training learns the dictionary in which ISTA codes the tokens.",
            f"{_YU23}, Sec. 2.4",
            "a derivation, no number",
            "04-dictionary",
        ),
        Claim(
            "segmentation",
            "The attention of a supervised CRATE covers the object, that of a ViT does not.",
            f"{_YU24}, Fig. 4",
            "mIoU 23.9 against 14.1 (S/8, VOC12 val)",
            "07-segmentation",
        ),
        Claim(
            "semantic-heads",
            "One head stands for one part, whatever the animal.",
            f"{_YU24}, Fig. 7",
            "four heads chosen by eye",
            "09-heads",
        ),
        Claim(
            "shared-parts",
            "The first components of the features tell the object from the background.",
            f"{_YU24}, Fig. 3",
            "images",
            "10-pca",
        ),
        Claim(
            "detection",
            "MaskCut finds objects in CRATE's features, in a ViT's it does not.",
            f"{_YU24}, Table 1",
            "box AP50 2.9 against 0.1 (S/8, COCO); Table 2 gives 2.1 for the same network",
            "11-detection",
        ),
        Claim(
            "noise",
            "CRATE's attention keeps to the object when pixels are noisy.",
            f"{_YU24}, Fig. 11 and 12",
            "images",
            "12-noise",
        ),
        Claim(
            "mssa",
            "MSSA in place of a ViT's attention is what segmentation needs.",
            f"{_YU24}, Table 2",
            "mIoU +5.5 beside ISTA, +7.9 beside an MLP",
            "14-ablation",
        ),
        Claim(
            "ista",
            "ISTA in place of an MLP helps segmentation.",
            f"{_YU24}, Table 2",
            "mIoU +1.9 beside MSSA, +4.3 beside MHSA",
            "14-ablation",
        ),
        Claim(
            "training",
            "Segmentation emerges along training, in CRATE only.",
            f"{_YU24}, Fig. 10",
            "images and AP by epoch",
            "15-training",
        ),
        Claim(
            "transfer",
            "What CRATE learned transfers to other data sets.",
            f"{_YU24}, Table 3",
            "CIFAR10 97.2, Flowers 92.2, Pets 86.4 % (S)",
            "16-transfer",
        ),
        Claim(
            "labels",
            "Heads stand for what the labels ask for.",
            f"{_OURS}",
            "",
            "17-labels",
        ),
        Claim(
            "self-supervision",
            "A ViT's attention segments where it learned without labels, and not from labels.",
            f"{_YU24}, Fig. 4",
            "mIoU 27.0 (DINO) against 14.1 (S/8, VOC12 val)",
            "19-self-supervision",
        ),
        Claim(
            "sparsity",
            "Sparsity is learned: training lowers the share of non-zero codes.",
            f"{_YU23}, Fig. 4 and 5",
            "curves that fall along training",
            "20-sparsity",
        ),
        Claim(
            "heads-are-used",
            "The network's answer rests on the head that finds the part.",
            f"{_OURS}",
            "",
            "18-interventions",
        ),
        Claim(
            "instruments",
            "These measures find part heads in a network that has some.",
            f"{_OURS}",
            "",
            "21-positive-control",
        ),
        Claim(
            "artifacts",
            "Scattered ViT maps are not due to artifact tokens of high norm.",
            f"{_OURS}, after Darcet et al. 2024",
            "",
            "23-artifacts",
        ),
    )
}
"""Name -> claim, in the order of the chapters."""
