"""Is the distribution complete? Uses the wheel alone, in an environment of its own and an empty folder.

    make check-dist                                    # builds it, then runs this
    python tests/dist.py dist/causal_tune_toolkit-0.2.0-py3-none-any.whl [--python PATH] [--folder DIR]

Each command is timed, and the output of the first that fails is shown in full. It fetches what the package needs, so it needs a network (or pip's cache)
and some minutes; with constraints.txt torch is the one that the tests run with."""
import argparse, os, resource, subprocess, sys, tempfile, time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = """
import importlib, pathlib, pkgutil, sys
import causal_tune
names = [m.name for m in pkgutil.walk_packages(causal_tune.__path__, "causal_tune.") if not m.name.endswith("__main__")]
for name in names: importlib.import_module(name)
for name in causal_tune.__all__: getattr(causal_tune, name)
home = pathlib.Path(causal_tune.__file__)
assert pathlib.Path(sys.prefix) in home.parents, f"{home} is not the installed package"
print(f"{len(names)} modules of {home.parent}")
"""
STREET = """
import numpy as np
from PIL import Image
from causal_tune.data.datasets import load_dataset
image = load_dataset("toyscapes:domain=fog,split=test,n=1")[0]["image"]
Image.fromarray(np.asarray(image).transpose(1, 2, 0)).save("street.png")
"""


def steps(wheel: Path, python: str, home: Path):
    "Yields a name and a command for each use of the wheel alone."
    inside, command = home / "bin/python", home / "bin/causal-tune"
    run = "runs/demo/runs/causal_tune-0"
    yield "an environment", [python, "-m", "venv", "--clear", home]
    yield "pip install", [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wheel]
    yield "pip check", [inside, "-m", "pip", "check", "--disable-pip-version-check"]
    yield "every module", [inside, "-c", MODULES]
    yield "--help", [command, "--help"]
    yield "doctor", [command, "doctor"]
    yield "demo", [command, "demo", "--seeds", "1", "--iterations", "4"]
    yield "an image", [inside, "-c", STREET]
    yield "predict", [command, "predict", f"{run}/checkpoint.pt", "street.png"]
    yield "a page", [command, "lab", "--n", "2", "--export", "lab.html"]


def busy() -> float:
    "CPU seconds of the commands so far; on a busy machine more reliable than the wall clock."
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="makes the environment")
    parser.add_argument("--folder", type=Path, help="for environment and results (default: a temporary one, which goes afterwards)")
    args = parser.parse_args()
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CAUSAL_TUNE"))}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        folder = args.folder or Path(temporary)
        empty = folder / "empty"
        empty.mkdir(parents=True)
        for name, words in steps(args.wheel.resolve(), args.python, folder / "environment"):
            start = time.perf_counter()
            before = busy()
            done = subprocess.run(words, cwd=empty, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            said = done.stdout.strip()
            if done.returncode: sys.exit(f"{said}\n\n{name} failed: {' '.join(map(str, words))}")
            took = f"{time.perf_counter() - start:6.1f} s, {busy() - before:6.1f} s of a processor"
            print(f"{took}  {name}: {said.splitlines()[-1][:120] if said else 'done'}", flush=True)
        print("written:", ", ".join(sorted(path.name for path in empty.iterdir())))


if __name__ == "__main__": main()
