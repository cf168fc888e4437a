"""What is trained inside a frozen backbone: Causal-Tune, Rein, SET, FADA, LoRA, SoMA and full tuning."""
from ..core.registry import lazy_names

_homes = {
    **dict.fromkeys(["create_adapter", "list_adapters", "check_contract"], "base"),
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
