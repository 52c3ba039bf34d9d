"""Masks from attention, and their agreement with the truth."""

from crate_analysis.segmentation.baselines import centre_attention, patch_ceiling, random_attention
from crate_analysis.segmentation.evaluation import attention_iou, baseline_iou
from crate_analysis.segmentation.masks import (
    attention_mask,
    best_head_iou,
    head_iou,
    to_pixels,
)

__all__ = [
    "attention_iou",
    "attention_mask",
    "baseline_iou",
    "best_head_iou",
    "centre_attention",
    "head_iou",
    "patch_ceiling",
    "random_attention",
    "to_pixels",
]
