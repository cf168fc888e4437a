"""Recipes, the training loop, checkpoints, and evaluation."""
from ..core.registry import lazy_names

_homes = {
    **dict.fromkeys(["Recipe", "get_recipe", "list_recipes"], "recipe"),
    **dict.fromkeys(["train", "report_on"], "loop"),
    "load_checkpoint": "checkpoint",
    **dict.fromkeys(["evaluate"], "evaluation"),
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
