"""Masks from attention, and their agreement with the truth."""

from crate_analysis.segmentation.artifacts import TREATMENTS, masked_iou
from crate_analysis.segmentation.average_precision import (
    TrueObjects,
    best_overlaps,
    coco_average_precision,
    true_objects,
)
from crate_analysis.segmentation.baselines import blob_about, centre_attention, patch_ceiling
from crate_analysis.segmentation.detection import (
    baseline_objects,
    detect_objects,
    find_objects,
    layer_overlaps,
    read_results,
    write_coco_results,
)
from crate_analysis.segmentation.evaluation import attention_iou, head_scores
from crate_analysis.segmentation.heads import agreement_intervals, choose_heads, head_agreement
from crate_analysis.segmentation.maskcut import maskcut
from crate_analysis.segmentation.masks import (
    attention_mask,
    average_precision,
    best_head_iou,
    head_iou,
    to_pixels,
)
from crate_analysis.segmentation.queries import query_scores
from crate_analysis.segmentation.readings import DINO, READINGS, iou_readings
from crate_analysis.segmentation.refine import refine_masks
from crate_analysis.segmentation.rivals import (
    RIVALS,
    image_specific,
    location_prior,
    mean_masks,
    scores_with_rivals,
)
from crate_analysis.segmentation.scoring import Scoring
from crate_analysis.segmentation.truth import Truth, best_heads, by_class

__all__ = [
    "DINO",
    "READINGS",
    "RIVALS",
    "TREATMENTS",
    "Scoring",
    "TrueObjects",
    "Truth",
    "agreement_intervals",
    "attention_iou",
    "attention_mask",
    "average_precision",
    "baseline_objects",
    "best_head_iou",
    "best_heads",
    "best_overlaps",
    "blob_about",
    "by_class",
    "centre_attention",
    "choose_heads",
    "coco_average_precision",
    "detect_objects",
    "find_objects",
    "head_agreement",
    "head_iou",
    "head_scores",
    "image_specific",
    "iou_readings",
    "layer_overlaps",
    "location_prior",
    "maskcut",
    "masked_iou",
    "mean_masks",
    "patch_ceiling",
    "query_scores",
    "read_results",
    "refine_masks",
    "scores_with_rivals",
    "to_pixels",
    "true_objects",
    "write_coco_results",
]
