"""Runs the notebooks as tests, each in a process of its own: `python tests/notebooks.py [REGEX] [--workers 2]`.

`nbdev_test` gives the same process to one notebook after another. A chapter that defines an adapter registers it, so that later chapters would
work with that class instead of the package's, and torch.compile keeps the `__main__` of the first one. Here each process is a fork of this one, which
has imported the libraries (four seconds each time otherwise) and of the package only its `__init__`. The CPU time of each process, with those it starts, is
printed. What failed is listed at the end.
"""
import argparse, importlib, os, re, sys, threading, time
from functools import partial
from pathlib import Path
from forks import fork

ROOT = Path(__file__).resolve().parents[1]
os.environ |= dict(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1") # before torch is imported; the processes share the cores


def run_one(path):
    "Run one notebook in this process; returns an exit status, 1 if a cell failed."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    os.chdir(ROOT / "nbs")
    return int(not test_nb(Path(path), skip_flags=get_config().tst_flags.split(), basepath=ROOT)[0])


def import_libraries():
    "Import what the notebooks import. A fork has no thread but one, so a library that starts threads here would wait for them forever."
    for name in "nbdev.test torch causal_tune cv2 scipy.stats scipy.fft pandas plotly.graph_objects timm segmentation_models_pytorch accelerate ipywidgets".split():
        importlib.import_module(name)
    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else threading.active_count()
    if threads > 1: raise RuntimeError(f"{threads} threads run after the imports, where a fork may have one")


def run_all(paths, workers):
    "Yields (path, passed, CPU seconds, seconds) as each notebook ends."
    waiting, running = list(paths), {}
    while waiting or running:
        while waiting and len(running) < workers:
            path = waiting.pop(0)
            running[fork(partial(run_one, path), ROOT, os.environ.copy(), 1, 2)] = path, time.time()
        pid, status, used = os.wait4(-1, 0)
        path, began = running.pop(pid)
        yield path, status == 0, used.ru_utime + used.ru_stime, time.time() - began


def main(pattern, workers):
    "Exit status: 1 if a notebook failed."
    paths = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if re.search(pattern, str(p.relative_to(ROOT))) and ".ipynb_checkpoints" not in p.parts]
    import_libraries()
    failed, total = [], time.process_time()
    for path, passed, cpu, wall in run_all(paths, workers):
        total += cpu
        print(f"{'passed' if passed else 'FAILED'} {cpu:6.1f} CPU s {wall:6.1f} s  {path.relative_to(ROOT)}", flush=True)
        if not passed: failed.append(str(path.relative_to(ROOT)))
    print(f"NOTEBOOKS: {len(paths) - len(failed)} passed, {len(failed)} failed, {total:.0f} CPU s")
    for path in sorted(failed): print(f"NOTEBOOK FAILED {path}")
    return bool(failed) or not paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pattern", nargs="?", default="", help="regular expression of the paths, such as 04_models or tutorials/first")
    parser.add_argument("--workers", type=int, default=2, help="notebooks at a time (default: 2)")
    sys.exit(main(**vars(parser.parse_args())))
