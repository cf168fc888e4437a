"""Transforms of feature maps to frequencies, band-pass filters, and the energy of each frequency."""
from ..core.registry import lazy_names

_homes = {
    **dict.fromkeys(["dct2", "idct2"], "dct"),
    **dict.fromkeys(["DifferenceOfGaussians", "GaussianBand", "PiecewiseBand", "IdealBand", "ButterworthBand", "LearnableBand",
                     "create_band", "split_by_band"], "bands"),
}
__all__ = list(_homes)
__getattr__, __dir__ = lazy_names(__name__, _homes)
