"""Do the tests notice when the code is wrong? `python tests/mutate.py [MODULE ...]` breaks one place after the other and counts.

Each line of `mutations.txt` names a module, a piece of its source that occurs once, and what to write instead. The change is made in
a copy of the repository, in the chapter and in the module; then the chapter runs, and if it notices nothing, the test files
that `TESTS` names for the module. A place that neither notices is printed as `survived`, unless the line explains
(after `##`) why it cannot be noticed. Exit status 1 if less than 95 % of the places are noticed.
"""
import argparse, json, os, re, shutil, subprocess, sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
TESTS = {"adapters.released": ["released"],
         "adapters.peers": ["peers"],
         "adapters.base": ["peers"],
         "adapters.tuning": ["peers"],
         "models.backbones": ["backbones"],
         "models.pretrained": ["backbones"],
         "models.mask2former": ["mask2former", "processes"],
         "data.images": ["images"],
         "data.converters": ["converters"],
         "data.datasets": ["camvid", "converters"],
         "data.frames": ["images", "converters", "own"],
         "data.labels": ["label_cases"],
         "data.masks": ["label_cases", "images"],
         **dict.fromkeys(["training.loop", "training.build", "training.checkpoint"], ["resume", "same", "processes"]),
         "training.stream": ["resume", "processes"],
         "published.checkpoints": ["checkpoints"],
         "compare.grid": ["quality", "kills"],
         "adapters.causal": ["peers"],
         "research.statistics": ["quality"],
         "training.evaluation": ["camvid", "processes"],
         "models.segmentor": ["processes"]}
LIMIT = 900 # seconds; a change that makes code run forever is noticed too


class Mutation(NamedTuple):
    "One place to break."
    module: str
    old: str # occurs once in the module
    new: str # what stands there instead
    why: str # why no test can notice, or empty


def read_table(path: Path) -> list[Mutation]:
    "The lines `module | old | new ## why`. Raises ValueError for a line of another form."
    table = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"): continue
        change, _, why = line.partition(" ## ")
        parts = [part.strip() for part in change.split(" | ")]
        if len(parts) != 3: raise ValueError(f"{path}: expected `module | old | new`, not {line!r}.")
        table.append(Mutation(*parts, why.strip()))
    return table


def source_of(root: Path, module: str) -> Path:
    "The file of a module, spectra.bands."
    return root.joinpath("causal_tune", *module.split(".")).with_suffix(".py")


def notebook_of(root: Path, module: str) -> Path:
    "The chapter that a module is made from."
    source = source_of(root, module)
    return source.parent / re.search(r"File to edit: (\S+)\.$", source.read_text(encoding="utf-8"), re.M)[1]


def exported(cell: dict) -> bool:
    return cell["cell_type"] == "code" and bool(re.search(r"^#\s*\|\s*export[si]?\b", "".join(cell["source"]), re.M))


def replaced_once(text: str, old: str, new: str, where) -> str:
    if text.count(old) != 1: raise ValueError(f"{old!r} occurs {text.count(old)} times in {where}; it must occur once.")
    return text.replace(old, new)


def broken(root: Path, m: Mutation) -> dict[Path, str]:
    "The chapter and the module with the change made, by path."
    module, notebook = root / "causal_tune" / f"{m.module.replace('.', '/')}.py", notebook_of(root, m.module)
    chapter = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in filter(exported, chapter["cells"]):
        cell["source"] = "".join(cell["source"]).replace(m.old, m.new)
    return {module: replaced_once(module.read_text(encoding="utf-8"), m.old, m.new, module.name), notebook: json.dumps(chapter)}


def passes(root: Path, words: list[str]) -> bool:
    "Does a test command succeed in this copy?"
    env = os.environ | dict(PYTHONPATH=str(root), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    try:
        return subprocess.run([sys.executable, *words], cwd=root, env=env, timeout=LIMIT, capture_output=True).returncode == 0
    except subprocess.TimeoutExpired: return False


RUN_CHAPTER = ("import sys; from pathlib import Path; from nbdev.test import test_nb; "
               "sys.exit(not test_nb(Path(sys.argv[1]), skip_flags=['notest', 'slow', 'cuda'], basepath='.')[0])")


def tests_of(root: Path, module: str) -> dict[str, list[str]]:
    "The tests that can detect a change in a module, fastest first: name -> arguments for python."
    notebook = notebook_of(root, module).resolve()
    files = {f"test_{name}.py": ["-m", "pytest", "-x", "-q", f"tests/test_{name}.py"] for name in TESTS.get(module, [])}
    return {notebook.stem: ["-c", RUN_CHAPTER, str(notebook)]} | files


def noticed_by(root: Path, module: str) -> str:
    "The first test that fails, or nothing."
    return next((name for name, words in tests_of(root, module).items() if not passes(root, words)), "")


def try_one(copies: Queue, m: Mutation) -> tuple[Mutation, str, float]:
    "Break one place in a free copy, see which test fails, and restore it."
    root, start = copies.get(), time.time()
    try:
        changed = broken(root, m)
        before = {path: path.read_text(encoding="utf-8") for path in changed}
        for path, text in changed.items(): path.write_text(text, encoding="utf-8")
        try: found = noticed_by(root, m.module)
        finally:
            for path, text in before.items(): path.write_text(text, encoding="utf-8")
    finally: copies.put(root)
    return m, found, time.time() - start


def copy_repository(target: Path) -> Path:
    "Copy the files that git tracks, from the working tree."
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if not (ROOT / name).is_file(): continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)
    return target


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="modules to break (default: all in mutations.txt)")
    parser.add_argument("--jobs", type=int, default=2, help="copies at work at a time")
    args = parser.parse_args()
    table = [m for m in read_table(HERE / "mutations.txt") if not args.modules or m.module in args.modules]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(args.jobs) as pool:
        copies = Queue()
        for i in range(args.jobs): copies.put(copy_repository(Path(folder) / str(i)))
        for m in table: broken(Path(folder) / "0", m) # a stale line of the table is an error before anything runs
        results = []
        used = {} # test that noticed something -> a module it belongs to
        for m, found, seconds in pool.map(lambda m: try_one(copies, m), table):
            said = f"noticed by {found}" if found else f"survived{f' ({m.why})' if m.why else ''}"
            used.setdefault(found, m.module)
            print(f"{m.module:12} {m.old} -> {m.new}: {said} ({seconds:.0f} s)", flush=True)
            results.append(bool(found))
        used.pop("", None)
        root = Path(folder) / "0" # whole again
        if failing := [name for name, module in used.items() if not passes(root, tests_of(root, module)[name])]:
            sys.exit(f"These tests fail without any change, so what they noticed counts for nothing: {', '.join(failing)}")
    print(f"{sum(results)} of {len(results)} noticed, {sum(bool(m.why) for m in table)} explained")
    sys.exit(sum(results) < .95 * len(results))


if __name__ == "__main__": main()
