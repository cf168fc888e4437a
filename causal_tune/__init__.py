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
    "list_heads": "heads",
    **dict.fromkeys(["Segmentor", "create_segmentor"], "segmentor"),
    **dict.fromkeys(["load_published", "segmentor_from_published", "HubSegmentor"], "checkpoints"),
    **dict.fromkeys(["load_dataset", "list_datasets", "own_data"], "datasets"),
    **dict.fromkeys(["prepare", "check_data"], "converters"),
    **dict.fromkeys(["Recipe", "get_recipe", "list_recipes"], "recipes"),
    **dict.fromkeys(["train", "load_checkpoint", "report_on"], "training"), "evaluate": "evaluation",
}
# chapters whose entries a registry is expected to hold, or whose methods a class
_registering = {"adapters": ["causal", "released", "peers", "tuning"], "heads": ["mask2former"],
                **dict.fromkeys(["segmentor", "training"], ["checkpoints"])}
__all__ = list(_home)


def __getattr__(name):
    if name not in _home: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _home[name]
    for chapter in _registering.get(home, []): importlib.import_module(f"{__name__}.{chapter}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__(): return sorted({*globals(), *__all__})


repair_torchvision()
