"""Runs the notebooks as tests, each in a process of its own: `python tests/notebooks.py [REGEX] [--workers 2]`.

`nbdev_test` gives the same process to one notebook after another. A chapter that defines an adapter registers it, so that later chapters would
work with that class instead of the package's, and torch.compile keeps the `__main__` of the first one. A fork after torch's import would spare the
imports, but OpenMP's threads do not survive it. The CPU time of each process, with those it starts, is printed. What failed is listed at the end.
"""
import argparse, os, re, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1") # before torch is imported; the processes share the cores


def run_one(path):
    "Run one notebook in this process; exit status 1 if a cell failed."
    from nbdev.config import get_config
    from nbdev.test import test_nb
    os.chdir(ROOT / "nbs")
    sys.exit(not test_nb(Path(path), skip_flags=get_config().tst_flags.split(), basepath=ROOT)[0])


def run_all(paths, workers):
    "Yields (path, passed, CPU seconds, seconds) as each notebook ends."
    waiting, running = list(paths), {}
    while waiting or running:
        while waiting and len(running) < workers:
            path = waiting.pop(0)
            process = subprocess.Popen([sys.executable, __file__, "--one", str(path)])
            running[process.pid] = path, time.time(), process
        pid, status, used = os.wait4(-1, 0)
        path, start, process = running.pop(pid)
        process.returncode = status
        yield path, status == 0, used.ru_utime + used.ru_stime, time.time() - start


def main(pattern, workers):
    "Exit status: 1 if a notebook failed."
    paths = [p for p in sorted((ROOT / "nbs").rglob("*.ipynb")) if re.search(pattern, str(p.relative_to(ROOT))) and ".ipynb_checkpoints" not in p.parts]
    failed, total = [], 0
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
    parser.add_argument("--one", metavar="PATH", help=argparse.SUPPRESS)
    words = vars(parser.parse_args())
    if one := words.pop("one"): run_one(one)
    sys.exit(main(**words))
