"""Checkpoints in the layouts of other projects, and export to ONNX."""
from ..core.registry import lazy_names

_homes = dict.fromkeys(["load_published", "segmentor_from_published", "convert_focus", "compare_weights"], "checkpoints")
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
