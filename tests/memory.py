"""Does memory stay constant? `python tests/memory.py [--rounds 1000] [--only NAME]` does one thing after the other again and again.

Each thing has a process of its own. After every round two numbers are taken: the bytes that are allocated, by Python and by native
code, as glibc counts them (to the byte; PYTHONMALLOC=malloc lets it count Python's too), and the memory that the process
holds (in pages). Their slopes leave the first fifth of the rounds out. Exit status 1 if one is more than 1 kB a round; what is held
counts from 500 rounds on, as it moves in steps.
"""
import argparse, ctypes, gc, itertools, multiprocessing, os, platform, sys, time
os.environ["TQDM_DISABLE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
from typing import NamedTuple
import numpy as np
import psutil
import torch
from scipy.stats import theilslopes

LIMIT = 1. # kB a round: what counts as constant
COUNTED = platform.libc_ver()[0] == "glibc" # whether it can be counted what is allocated


def held() -> float:
    "Memory of this process in kB, after unused memory has been returned to the system."
    if COUNTED: ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss / 1024


class Mallinfo(ctypes.Structure):
    "What glibc says of its heaps."
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]


def allocated() -> float:
    "Memory that is in use in kB; small pieces in glibc's heaps, large ones beside them."
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Mallinfo
    info = mallinfo()
    return (info.uordblks + info.hblkhd) / 1024


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


def toy(): # the smallest whole model, with random weights
    from causal_tune.models.segmentor import create_segmentor
    return create_segmentor("toy_vit", "causal_tune", "linear", pretrained=False)


def pictures(domains=("clear", "fog")): # domain -> images
    return {domain: torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8) for domain in domains}


def moves():
    "Every control of one lab is moved, and all requests are answered."
    from causal_tune.lab.widget import FrequencyLab
    lab = FrequencyLab(toy(), pictures())
    values = dict(filter=["dog", "gaussian", "butterworth", "learnable", "none"], order=[1, 2, 3], keep_dc=[True, False],
                  layer=[0, 3, 7], domain=["clear", "fog"], reference=["fog", "clear"], image=[0, 1], scale=["log", "share"],
                  cells=["change to reference", "share removed"], coefficient=[[0, 1], [2, 3]], domains=[["fog"], ["clear", "fog"]])
    def move(i):
        lab.state = dict(cuts=[.1 + i % 37 / 100, .6 + i % 41 / 100])
        for name, some in values.items(): lab.state = {name: some[i % len(some)]}
        for part in lab.answer(lab.state): pass # as the browser asks for what the models make of it
    return move


def labs():
    "A lab on a model of its own is opened, moved, and closed."
    from causal_tune.lab.widget import FrequencyLab
    images = pictures()
    def open_and_close(i):
        lab = FrequencyLab(toy(), images)
        lab.state = dict(cuts=[.1, .5 + i % 50 / 100])
        lab.close()
    return open_and_close


def predict():
    "Images of several sizes are segmented."
    segmentor = toy()
    def one(i):
        # the same sizes every 48 rounds: what is kept per size is soon full
        image = np.full((48 + i % 16, 64 + i % 48, 3), i % 256, np.uint8)
        segmentor.predict(image, size=None if i % 2 else (32 + 8 * (i % 3), 48))
    return one


def segmentors():
    "Models are made, with each adapter in turn."
    from causal_tune.adapters.base import list_adapters
    from causal_tune.models.segmentor import create_segmentor
    adapters = itertools.cycle("soma:first_layer=4" if name == "soma" else name for name in list_adapters())
    def make(i): create_segmentor("toy_vit", next(adapters), "dpt", pretrained=False)
    return make


def weights():
    "The weights of a backbone are read from a file."
    import tempfile
    from pathlib import Path
    from safetensors.torch import save_file
    from causal_tune.models.backbones import create_backbone
    folder = tempfile.TemporaryDirectory()
    path = Path(folder.name) / "toy_vit.safetensors"
    save_file(create_backbone("toy_vit", pretrained=False).model.state_dict(), path)
    def read(i, folder=folder): create_backbone("toy_vit", pretrained=str(path))
    return read


def frames():
    "Toyscapes of new seeds, in all weathers, are rendered and read again."
    from causal_tune.data import datasets
    from functools import lru_cache
    datasets._kept_pair = lru_cache(maxsize=50)(datasets._kept_pair.__wrapped__) # full before the first fifth of the rounds is over
    def render(i):
        for again in range(2): datasets.toyscapes_pair(i, datasets.DOMAINS[i % len(datasets.DOMAINS)], (48, 64))
    return render


CASES = {case.__name__: case for case in (moves, labs, predict, segmentors, weights, frames)}


def measure(name: str, rounds: int) -> bool:
    "Do one thing `rounds` times; says what was measured, and whether memory was constant."
    torch.manual_seed(0)
    one_round = CASES[name]()
    one_round(0)
    gc.collect()
    gc.freeze() # torch's hundred thousands of objects stay; looking at them after every round would take most of the time
    start = time.time()
    measured = dict(allocated=[], held=[])
    for i in range(rounds):
        one_round(i)
        gc.collect()
        if COUNTED: measured["allocated"].append(allocated())
        measured["held"].append(held())
    slopes = {what: slope(values[rounds // 5:]) for what, values in measured.items() if values}
    constant = all(found.constant for what, found in slopes.items() if what == "allocated" or rounds >= 500)
    last = measured["held"][-1] / 1024
    print(f"{name:10} {rounds} rounds in {time.time() - start:.0f} s, {last:.0f} MB held; {'constant' if constant else 'NOT constant'}")
    for what, found in slopes.items(): print(f"{'':10} {what:9} {found}", flush=True)
    return constant


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000, help="of each thing (default: 1000)")
    parser.add_argument("--only", choices=CASES, nargs="+", default=list(CASES), help="these things alone")
    args = parser.parse_args()
    if os.environ.get("PYTHONMALLOC") != "malloc":
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | dict(PYTHONMALLOC="malloc"))
    forked = multiprocessing.get_context("fork")
    failed = []
    for name in args.only:
        process = forked.Process(target=lambda: sys.exit(not measure(name, args.rounds)))
        process.start()
        process.join()
        if process.exitcode: failed.append(name)
    print(f"{len(failed)} not constant: {', '.join(failed)}" if failed else "all constant")
    return 1 if failed else 0


if __name__ == "__main__": sys.exit(main())
