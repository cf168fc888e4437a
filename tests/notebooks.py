"""Runs the notebooks as tests, each in a process of its own: `python tests/notebooks.py [REGEX] [--workers 2]`.

`nbdev_test` gives the same process to one notebook after another. A chapter that defines an adapter registers it, so that later chapters would
work with that class instead of the package's, and torch.compile keeps the `__main__` of the first one. Here torch is imported once, and a process
is forked for every notebook; its CPU time, with that of the processes it starts, is printed. What failed is listed at the end.
"""
import argparse, os, re, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1") # before torch is imported; the processes share the cores


def run(path, skip):
    "Run one notebook in this process; whether its cells passed. Its output goes to the terminal."
    from nbdev.test import test_nb
    return test_nb(path, skip_flags=skip, basepath=ROOT)[0]


def run_all(paths, workers, skip):
    "Yields (path, passed, CPU seconds, seconds) as each notebook ends."
    waiting, running = list(paths), {}
    while waiting or running:
        while waiting and len(running) < workers:
            path = waiting.pop(0)
            sys.stdout.flush()
            if not (pid := os.fork()):
                passed = False
                try: passed = run(path, skip)
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(not passed) # no clean-up of what the parent holds
            running[pid] = path, time.time()
        pid, status, used = os.wait4(-1, 0)
        path, start = running.pop(pid)
        yield path, status == 0, used.ru_utime + used.ru_stime, time.time() - start


def main(pattern, workers):
    "Exit status: 1 if a notebook failed."
    from nbdev.config import get_config
    import nbdev.test  # noqa: F401  what most chapters import, once
    import causal_tune as ct
    for name in ct.__all__: getattr(ct, name)
    import accelerate, anywidget, cv2, ipywidgets, pandas, plotly.subplots, scipy.stats, torch.utils.tensorboard  # noqa: F401
    os.chdir(ROOT / "nbs")
    paths = [p for p in sorted(Path.cwd().rglob("*.ipynb")) if re.search(pattern, str(p.relative_to(ROOT))) and ".ipynb_checkpoints" not in p.parts]
    failed, total = [], 0
    for path, passed, cpu, wall in run_all(paths, workers, get_config().tst_flags.split()):
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
