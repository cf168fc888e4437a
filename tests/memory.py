"""What the scripts and tests on memory share: how much a process holds, and how fast that grows."""
import ctypes, gc, sys
from typing import NamedTuple
import numpy as np
import psutil
from scipy.stats import theilslopes

LIMIT = 1. # kB a round: what counts as constant


def held() -> float:
    "Memory of this process in kB, after everything that nobody uses has been given back to the system."
    gc.collect()
    if sys.platform == "linux": ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 1024


class Slope(NamedTuple):
    "Growth in kB a round, and its 95 % interval."
    value: float
    low: float
    high: float
    @property
    def constant(self): return self.value <= LIMIT
    def __str__(self): return f"{self.value:+.2f} kB a round (95 %: {self.low:+.2f} to {self.high:+.2f})"


def slope(kilobytes, # after each round
          block: int = 1, # rounds that are averaged first, so that what repeats within them is no growth
) -> Slope:
    "Theil and Sen's: the median of the slopes between any two blocks, which single jumps do not move."
    whole = len(kilobytes) // block * block
    means = np.reshape(kilobytes[-whole:], (-1, block)).mean(1)
    value, _, low, high = theilslopes(means, np.arange(len(means)) * block)
    return Slope(value, low, high)
