"""The command line, `causal-tune`."""
from ..core.registry import lazy_names

_homes = {"main": "entry"}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
