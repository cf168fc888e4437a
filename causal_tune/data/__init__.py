"""Images and labels: data sets, augmentation, corruptions, and conversion of official layouts."""
from ..core.registry import lazy_names

_homes = {
    **dict.fromkeys(["load_dataset", "list_datasets"], "datasets"),
    "own_data": "frames",
    "prepare": "converters",
    "check_data": "converters",
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
