"""See which frequencies of a vision foundation model belong to the scene, and fine-tune on those.

The names below are all a first user needs; each is imported when it is first used, so that `import causal_tune`
costs milliseconds.
"""
__version__ = "0.2.0"

from .core.registry import lazy_names
from .core.files import repair_torchvision

_homes = {
    **dict.fromkeys(["dct2", "idct2"], "spectra.dct"),
    **dict.fromkeys(["DifferenceOfGaussians", "GaussianBand", "PiecewiseBand", "IdealBand", "ButterworthBand",
                     "LearnableBand", "create_band", "split_by_band"], "spectra.bands"),
    **dict.fromkeys(["create_adapter", "list_adapters"], "adapters.base"),
    **dict.fromkeys(["create_backbone", "list_backbones"], "models.backbones"),
    "list_heads": "models.heads",
    **dict.fromkeys(["Segmentor", "create_segmentor"], "models.segmentor"),
    **dict.fromkeys(["load_dataset", "list_datasets"], "data.datasets"),
    "own_data": "data.frames",
    "prepare": "data.converters",
    "check_data": "data.converters",
    **dict.fromkeys(["Recipe", "get_recipe", "list_recipes"], "training.recipe"),
    **dict.fromkeys(["train", "report_on"], "training.loop"),
    "load_checkpoint": "training.checkpoint",
    "evaluate": "training.evaluation",
    "FrequencyLab": "lab.widget",
    **dict.fromkeys(["load_published", "segmentor_from_published"], "published.checkpoints"),
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)

repair_torchvision()


def load_ipython_extension(shell):
    "`%load_ext causal_tune` in a notebook: `%lab MODEL IMAGES` opens the frequency lab."
    from .lab.launch import load_magic
    load_magic(shell)
