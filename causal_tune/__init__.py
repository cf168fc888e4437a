"""See which frequencies of a vision foundation model belong to the scene, and fine-tune on those.

The names below are all a first user needs; each is imported when it is first used, so that `import causal_tune`
costs milliseconds.
"""
__version__ = "0.1.0"

import importlib
from .core import repair_torchvision

_home = {
    "dct2": "spectral", "idct2": "spectral",
    **dict.fromkeys(["DifferenceOfGaussians", "GaussianBand", "PiecewiseBand", "IdealBand", "ButterworthBand",
                     "LearnableBand", "create_band", "split"], "bands"),
    **dict.fromkeys(["create_adapter", "list_adapters"], "adapters"),
    **dict.fromkeys(["create_backbone", "list_backbones"], "backbones"),
    "FrequencyLab": "lab",
    "create_segmentor": "segmentor",
    **dict.fromkeys(["load_published", "segmentor_from_published"], "checkpoints"),
    "load_dataset": "datasets",
    **dict.fromkeys(["prepare", "check_data"], "converters"),
    "Recipe": "recipes", "get_recipe": "recipes",
    "train": "training", "evaluate": "evaluation",
}
_registering = {"adapters": ["causal", "released", "peers", "tuning"]}  # chapters whose entries a registry is expected to hold
__all__ = list(_home)


def __getattr__(name):
    if name not in _home: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _home[name]
    for chapter in _registering.get(home, []): importlib.import_module(f"{__name__}.{chapter}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__(): return sorted({*globals(), *__all__})


repair_torchvision()
