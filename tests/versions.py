"""Do the oldest versions that settings.ini allows work together, and the newest that there are?

    python tests/versions.py                              # both, in environments of their own under a temporary folder
    python tests/versions.py oldest --python oldest=PATH --folder DIR

Each environment is made with pip from the Python that is named (else `python3.N` on the path), is given the package with all that its
tests need, and runs what decides about versions: the tests and chapters below. A table says what was in it and what passed. It fetches
several gigabytes where torch comes for CUDA; an environment that is there is used again."""
import argparse, json, os, re, subprocess, sys, tempfile, time
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ["images", "styles", "precision", "pretrained", "released", "report", "own", "backbones"]
CHAPTERS = ["01_spectra", "02_adapters", "04_models/01_backbones.ipynb", "04_models/04_segmentor.ipynb", "05_training/06_loop.ipynb",
            "06_research/02_figures.ipynb", "08_lab/03_widget.ipynb"]
WITH_NEWEST = ["09_published/02_export.ipynb"]  # what asks for newer versions than the package does
SHOWN = ["torch", "torchvision", "timm", "segmentation_models_pytorch", "numpy", "scipy", "pandas", "opencv-python", "pillow", "safetensors",
         "huggingface_hub", "accelerate", "fastcore", "plotly", "ipywidgets", "anywidget", "jupyterlab", "kaleido", "onnx", "onnxscript",
         "onnxruntime"]


def settings() -> dict:
    "Settings of settings.ini."
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def oldest_pins() -> list[str]:
    "For pip: every requirement that has a lower bound, at that bound."
    requirements = settings()["requirements"].split()
    bounds = [re.fullmatch(r"([\w.-]+)>=([\d.]+)(,.*)?", requirement) for requirement in requirements]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def environment(kind: str, python: str, folder: Path) -> Path:
    "Path of the Python of an environment that holds the package at its oldest or newest, made where it is not there yet."
    home = folder / kind
    inside, stamp = home / "bin/python", home / "complete"
    pins = oldest_pins() if kind == "oldest" else []
    if stamp.exists() and stamp.read_text() == "\n".join(pins): return inside
    subprocess.run([python, "-m", "venv", "--clear", home], check=True)
    constraints = home / "constraints.txt"
    constraints.write_text("\n".join(pins))
    pip = [inside, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--upgrade", "pip", "setuptools", "wheel"], check=True)
    subprocess.run([*pip, "--constraint", constraints, "--editable", f"{ROOT}[dev]"], check=True)
    stamp.write_text(constraints.read_text())
    return inside


def versions(python: Path) -> dict:
    "Versions that an environment holds, by name."
    code = """if True:
        import importlib.metadata as m, json, platform, sys
        print(json.dumps(dict(Python=platform.python_version()) | {name: m.version(name) for name in sys.argv[1:]}))"""
    said = subprocess.run([python, "-c", code, *SHOWN], check=True, capture_output=True, text=True).stdout
    return json.loads(said)


def run(python: Path, words: list, log: Path) -> str:
    "Output of a command, also written to a file; the command may fail."
    env = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", PATH=f"{python.parent}{os.pathsep}{os.environ['PATH']}")
    with open(log, "w") as file: subprocess.run([python, *words], cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT)
    return log.read_text()


def tried(kind: str, python: str, folder: Path) -> dict:
    "The row of one environment: its versions and results."
    inside = environment(kind, python, folder)
    row = versions(inside)
    start = time.perf_counter()
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/test_{name}.py" for name in TESTS)]
    said = run(inside, words, folder / f"{kind}-tests.txt")
    row["tests"] = said.strip().splitlines()[-1].strip("= ")
    chapters = CHAPTERS + WITH_NEWEST if kind == "newest" else CHAPTERS
    failed = [chapter for chapter in chapters if not passes(inside, chapter, folder / f"{kind}-{Path(chapter).stem}.txt")]
    row["chapters"] = f"failed: {', '.join(failed)}" if failed else f"all {len(chapters)} passed"
    row["minutes"] = f"{(time.perf_counter() - start) / 60:.0f}"
    return row


def passes(python: Path, chapter: str, log: Path) -> bool:
    "Whether a chapter, or all of a folder, runs through."
    words = [python.with_name("nbdev_test"), "--path", f"nbs/{chapter}", "--n_workers", "1", "--do_print"]
    return "Success." in run(python, words, log)


def table(rows: dict) -> str:
    "Markdown with a column for each environment."
    lines = [["", *rows], ["---"] * (len(rows) + 1)]
    lines += [[name, *(row[name] for row in rows.values())] for name in next(iter(rows.values()))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=["oldest", "newest"], help="oldest, newest")
    parser.add_argument("--python", action="append", default=[], metavar="KIND=PATH", help="the Python of one kind")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "causal_tune_versions", help="holds environments, logs")
    args = parser.parse_args()
    pythons = dict(oldest=f"python{settings()['min_python']}", newest=f"python{settings()['max_python']}")
    pythons |= dict(words.split("=", 1) for words in args.python)
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = {kind: tried(kind, pythons[kind], args.folder) for kind in args.kinds}
    print(table(rows))
    if any("failed" in row["tests"] + row["chapters"] or "error" in row["tests"] for row in rows.values()):
        sys.exit(f"What failed stands in {args.folder}.")


if __name__ == "__main__": main()
