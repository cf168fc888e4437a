"""The frequency lab, as a Jupyter widget and as an offline page."""
from ..core.registry import lazy_names

_homes = {
    "FrequencyLab": "widget",
    **dict.fromkeys(["launch_lab", "open_lab", "watch"], "launch"),
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
