"""Backbones, segmentation heads, and the segmentor that joins them."""
from ..core.registry import lazy_names

_homes = {
    **dict.fromkeys(["create_backbone", "list_backbones"], "backbones"),
    **dict.fromkeys(["create_head", "list_heads"], "heads"),
    **dict.fromkeys(["Segmentor", "create_segmentor"], "segmentor"),
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
