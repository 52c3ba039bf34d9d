"""Masks from attention, and their agreement with the truth."""

from crate_analysis.segmentation.average_precision import (
    TrueObjects,
    best_overlaps,
    coco_average_precision,
    true_objects,
)
from crate_analysis.segmentation.baselines import centre_attention, patch_ceiling, random_attention
from crate_analysis.segmentation.detection import (
    baseline_objects,
    detect_objects,
    read_results,
    write_coco_results,
)
from crate_analysis.segmentation.evaluation import (
    attention_iou,
    baseline_iou,
    baseline_scores,
    head_scores,
    location_prior,
)
from crate_analysis.segmentation.heads import agreement_intervals, choose_heads, head_agreement
from crate_analysis.segmentation.maskcut import maskcut
from crate_analysis.segmentation.masks import (
    attention_mask,
    average_precision,
    best_head_iou,
    head_iou,
    to_pixels,
)
from crate_analysis.segmentation.refine import refine_masks
from crate_analysis.segmentation.truth import Truth

__all__ = [
    "TrueObjects",
    "Truth",
    "agreement_intervals",
    "attention_iou",
    "attention_mask",
    "average_precision",
    "baseline_iou",
    "baseline_objects",
    "baseline_scores",
    "best_head_iou",
    "best_overlaps",
    "centre_attention",
    "choose_heads",
    "coco_average_precision",
    "detect_objects",
    "head_agreement",
    "head_iou",
    "head_scores",
    "location_prior",
    "maskcut",
    "patch_ceiling",
    "random_attention",
    "read_results",
    "refine_masks",
    "to_pixels",
    "true_objects",
    "write_coco_results",
]
