"""What each frequency band carries: statistics, figures, probes and evidence."""
from ..core.registry import lazy_names

_homes = {
    **dict.fromkeys(["suggest_band"], "evidence"),
    **dict.fromkeys(["patch_bands", "TwinPairs"], "rings"),
    **dict.fromkeys(["make_passport", "compare_passports"], "passport"),
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
