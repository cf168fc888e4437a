"""Is anything lost when a command is killed? `python tests/kills.py [--n 200] [--seed 0] [--only train,eval,...]`.

Each trial starts a command of `causal-tune`, kills it at a random moment or at a chosen call (before or after the k-th `os.fsync`,
`Path.replace`, `torch.save` ...), sometimes twice in succession, and calls it again until it finishes. Held is a trial whose result
equals the uninterrupted one, that left no process 10 s after a kill, no temporary file and no lock at the end, and no
traceback after a stop signal. At the end a table shows how many were tried and passed; exit status 1 if any was not.

Importing torch takes seconds, so this process imports everything once and forks for every call. A call is a session of its own,
by which leftovers are found. The calls to die at are counted here, from outside; the package is not modified.
"""
import argparse, csv, fcntl, hashlib, multiprocessing.util, os, random, re, shutil, signal, sys, tempfile, threading, time, traceback, zipfile
from collections import Counter
from ctypes import c_long
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import NamedTuple

os.environ |= dict(OMP_NUM_THREADS="1", TQDM_DISABLE="1", ACCELERATE_USE_CPU="true", PYTHONWARNINGS="ignore", CUDA_VISIBLE_DEVICES="")
LIMIT = 120    # seconds that a command may take
ORPHANED = 10  # seconds after which nothing of a killed command may be left
SIGNALS = ("KILL", "TERM", "INT")


# --- what is killed ---------------------------------------------------------------------------------------------------

def toy(domain, split, n): return f"toyscapes:domain={domain},split={split},n={n}"


SMALL = ["--crop", "32x48", "--eval_size", "32x48", "--batch_size", "2", "--precision", "no"]
DATA = ["--train", toy("clear", "train", 4), "--targets", toy("clear", "test", 2), toy("fog", "test", 2)]
RUN = ["train", "demo", "--adapter", "causal_tune", "--init", "zero", "--lr", "1e-3", "--iterations", "12", "--save_every", "3",
       "--weights", "weights.safetensors", *DATA, *SMALL, "--out", "out"]
COMMANDS = { # name -> what follows `causal-tune`, in a folder with the files that `inputs` makes; all of it goes to out*
    "train": RUN,
    "train-workers": [*RUN, "--workers", "2"],
    "bench-quality": ["bench-quality", "toyscapes", "--seeds", "1", "--jobs", "2", "--only", "causal_tune zero", "--out", "out"],
    "prepare": ["prepare", "gta", "--root", "out", "--workers", "2"],
    "predict": ["predict", "checkpoint.pt", *(f"images/{i}.png" for i in range(8)), "--out", "out"],
    "predict-acdc": ["predict-acdc", "checkpoint.pt", "--root", ".", "--out", "out/acdc.zip"],
    "demo": ["demo", "--seeds", "1", "--iterations", "4", "--save_every", "2", "--weights", "weights.safetensors", *DATA, *SMALL,
             "--out", "out"],
    "eval": ["eval", "checkpoint.pt"],
    "lab": ["lab", "--images", "domains", "--n", "2", "--weights", "weights.safetensors", "--size", "64x64", "--export", "out/lab.html"]}
OFTEN = {"train": 4, "train-workers": 2, "bench-quality": 2, "prepare": 4, "predict": 3, "predict-acdc": 3} # the others once


def inputs(folder: Path) -> None:
    "What the commands read: weights, a checkpoint, photographs, two small data sets."
    import numpy as np, torch
    from PIL import Image
    from safetensors.torch import save_file
    from causal_tune.models.backbones import create_backbone
    rng = np.random.default_rng(0)
    def photo(*parts, size=(48, 64, 3), below=256):
        path = folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(rng.integers(0, below, size, dtype=np.uint8))
        if below < 256: image.putpalette([(37 * i + 11) % 256 for i in range(768)])
        image.save(path)
    torch.manual_seed(0)
    save_file(create_backbone("toy_vit", pretrained=False).model.state_dict(), folder / "weights.safetensors")
    for i in range(8): photo("images", f"{i}.png")
    for domain in ("clear", "fog"):
        for i in range(2): photo("domains", domain, f"{i}.png", size=(64, 64, 3))
    for i in range(120): photo("out", "gta", "labels", f"{i:05d}.png", size=(60, 80), below=35)
    for domain in ("fog", "night", "rain", "snow"):
        for i in range(3): photo("acdc", "rgb_anon", domain, "test", "GOPR1", f"{domain}_{i}_rgb_anon.png")


def shrink_benchmark() -> None:
    "The benchmark with one small experiment, one rate and a made-up band; costs are measured in seconds, so they are made up too."
    import pandas as pd
    from types import SimpleNamespace
    from causal_tune.compare import experiments as quality
    class Found(SimpleNamespace):
        def __str__(self): return "ideal:low=0.001,high=0.55"
    recipe = replace(quality.EXPERIMENTS["toyscapes"].recipe, train=toy("clear", "train", 4), validate=toy("clear", "val", 2),
                     targets=tuple(toy(d, "test", 2) for d in ("clear", "fog", "snow")), crop=(32, 48), eval_size=(48, 64), head="linear",
                     weights="weights.safetensors", iterations=6, batch_size=2, save_every=2, precision="no")
    quality.EXPERIMENTS["toyscapes"] = quality.Experiment(recipe, "clear", (recipe.train, recipe.validate), ("none", "causal_tune zero"),
                                                          {"weathers": ["fog", "snow"]}, multiples=(1.,), search_seeds=(101,))
    quality.HEAD_LRS, quality.SEARCH_SEEDS = (1e-3,), (101,)
    quality.suggest_band = lambda frozen, data, block: Found(table=pd.DataFrame([dict(outer=.5, score=.25)]))
    quality.measure_costs = lambda recipe, compared, *_: pd.DataFrame([dict(adapter=label, step=1.) for label in compared])


def load_everything() -> None:
    "Import what the commands import, and render what they render, so that a fork has it."
    import cv2, torch
    import accelerate, torch.utils.tensorboard  # noqa: F401
    from causal_tune.compare import grid as benchmark
    from causal_tune.cli import commands  # noqa: F401
    from causal_tune.compare import experiments  # noqa: F401
    from causal_tune.data import converters, datasets  # noqa: F401
    from causal_tune.lab import page, widget  # noqa: F401
    from causal_tune.research import statistics as results
    from causal_tune.training import loop  # noqa: F401
    from multiprocessing import get_context
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cv2.setNumThreads = lambda n: None # in a fork it waits for threads that are not there
    shrink_benchmark()
    benchmark.code_version = results.code_version = lambda: "0" # it changes with every file that is edited meanwhile
    benchmark.get_context = lambda _: get_context("fork") # a worker that starts afresh would import torch for every trial
    for domain, split, n in [("clear", "train", 4), ("clear", "val", 2), *((d, "test", 2) for d in ("clear", "fog", "snow"))]:
        for size in ((192, 256), (48, 64)):
            for i in range(n): datasets.toyscapes_pair(datasets.TOYSCAPES_SEEDS[split] + i, domain, size)


# --- a call, and how it is killed -------------------------------------------------------------------------------------

POINTS = ("os.fsync", "os.replace", "os.unlink", "Path.replace", "Path.unlink", "Path.write_text", "torch.save", "np.savez", "AdamW.step",
          "Segmentor.predict", "Image.save", "writerow", "flock")
calls = RawArray(c_long, len(POINTS)) # of all processes of one call; two that count at once may lose one, which does no harm
fired = RawArray(c_long, 1)


class Kill(NamedTuple):
    "How one call is ended."
    signal: str
    aim: str            # the "parent", its "group", or the process "itself" that makes the call
    moment: float = 0.  # share of the time that the whole command takes
    point: str = ""     # or: the function at whose ...
    k: int = 0          # ... k-th call it comes
    after: bool = False # rather than before
    twice: bool = False # the signal is sent again a little later

    def __str__(self):
        place = f"{'after' if self.after else 'before'} call {self.k} of {self.point}" if self.point else f"at {self.moment:.0%} of its time"
        return f"{self.signal}{' twice' * self.twice} to {self.aim} {place}"

    def send(self, leader: int) -> None: # process id of the call
        number = getattr(signal, f"SIG{self.signal}")
        for wait in [0, .05] if self.twice else [0]:
            time.sleep(wait)
            try: os.kill(os.getpid() if self.aim == "itself" else leader, number) if self.aim != "group" else os.killpg(leader, number)
            except ProcessLookupError: return


def watch(kill: Kill | None, leader: int) -> None:
    "Count the calls of all points, and die at the one that `kill` names."
    import numpy as np, torch
    from PIL import Image
    from causal_tune.models.segmentor import Segmentor
    owners = {"os": os, "Path": Path, "torch": torch, "np": np, "AdamW": torch.optim.AdamW, "Segmentor": Segmentor,
              "Image": Image.Image}
    def counted(at, original):
        def call(*args, **options):
            calls[at] += 1
            mine = kill and kill.point == POINTS[at] and calls[at] >= kill.k and not fired[0]
            if mine: fired[0] = 1
            if mine and not kill.after: kill.send(leader)
            result = original(*args, **options)
            if mine and kill.after: kill.send(leader)
            return result
        return call
    for at, point in enumerate(POINTS):
        owner, _, name = point.rpartition(".")
        owner = owners.get(owner, fcntl if name == "flock" else csv.DictWriter)
        name = dict(savez="savez_compressed").get(name, name)
        setattr(owner, name, counted(at, getattr(owner, name)))


def begin(words: list[str], folder: Path, kill: Kill | None) -> int: # process id, which is that of its session too
    "Call `causal-tune` in a process and session of its own; what it says is added to stdout.txt and stderr.txt."
    calls[:] = [0] * len(POINTS)
    fired[0] = 0
    for stream in (sys.stdout, sys.stderr): stream.flush()
    pid = os.fork()
    if pid: return pid
    status = 70
    try:
        os.setsid()
        os.chdir(folder)
        signal.signal(signal.SIGINT, signal.default_int_handler) # a shell's background jobs ignore it
        for number, name in ((0, os.devnull), (1, "stdout.txt"), (2, "stderr.txt")):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)
        watch(kill, os.getpid())
        from causal_tune.cli import main
        status = main(words)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        leave()
    except SystemExit as stop: status = stop.code
    except BaseException: traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr): stream.flush()
        os._exit(status)


def leave() -> None:
    "Exit as an interpreter does: wait for threads and processes."
    threading._shutdown()
    multiprocessing.util._exit_function()


def alive(session: int) -> list[str]: # "pid name" of its processes
    "Processes of a call that still run."
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try: name, rest = stat.read_text().rsplit(")", 1)
        except OSError: continue # gone meanwhile
        state, _, _, of = rest.split()[:4]
        if int(of) == session and state not in "ZX": found.append(name.replace(" (", " "))
    return found


def wait(pid: int, limit: float) -> int | None: # exit status, negative for a signal; None where it still runs
    "Wait for a process of ours."
    until = time.time() + limit
    while time.time() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: return os.waitstatus_to_exitcode(status)
        time.sleep(.01)


class Ended(NamedTuple):
    "The outcome of a call."
    status: int       # negative for a signal
    wrong: list[str]  # what should not have been
    struck: bool      # whether the kill found it running


def call(name: str, folder: Path, kill: Kill | None = None, lasts: float = 0. # seconds that the whole command takes
) -> Ended:
    "One call from its start until nothing of it is left."
    wrong = []
    for text in ("stdout.txt", "stderr.txt"): (folder / text).write_text("")
    pid = begin(COMMANDS[name], folder, kill)
    status = None
    if kill and not kill.point:
        status = wait(pid, kill.moment * lasts)
        if status is None: kill.send(pid)
    struck = status is None
    if status is None: status = wait(pid, LIMIT)
    if status is None: wrong.append(f"it did not end within {LIMIT} s")
    until = time.time() + (ORPHANED if status is not None else 0)
    while (left := alive(pid)) and time.time() < until: time.sleep(.05)
    if left and status is not None: wrong.append(f"{ORPHANED} s later it had left the processes {', '.join(left)}")
    for process in left: os.kill(int(process.split()[0]), signal.SIGKILL)
    if status is None: status = wait(pid, 10)
    said = (folder / "stderr.txt").read_text()
    told = not kill or kill.signal != "KILL" or kill.aim == "itself"
    if told and "Traceback" in said: wrong.append(f"a traceback ends in {said.strip().splitlines()[-1]!r}")
    return Ended(status, wrong, bool(fired[0]) if kill and kill.point else struck)


# --- what has to be equal ---------------------------------------------------------------------------------------------

IGNORED = re.compile(r"tensorboard/|/\.lock(\.holder)?$") # events with their times; what a lock leaves behind


def content(path: Path):
    "The comparable content of a file, without times."
    import numpy as np, torch
    if path.suffix == ".pt": return digests(torch.load(path, weights_only=True))
    if path.name == "log.csv": return [[r["iteration"], r["loss"], r["lr"]] for r in csv.DictReader(path.open())]
    if path.suffix == ".npz": return {k: v.tolist() for k, v in np.load(path).items()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive: return {name: digest(archive.read(name)) for name in archive.namelist()}
    return digest(path.read_bytes())


def digest(data: bytes): return hashlib.sha256(data).hexdigest()


def digests(value): # tensors become what they hold
    import torch
    if isinstance(value, torch.Tensor): return str(value.dtype), tuple(value.shape), digest(value.contiguous().numpy().tobytes())
    if isinstance(value, dict): return {k: digests(v) for k, v in value.items()}
    return value


def result(folder: Path) -> dict: # name -> content
    "All files of a finished command, and the scores that it printed."
    files = [p for p in sorted((folder / "out").rglob("*")) if p.is_file()]
    found = {str(p.relative_to(folder)): p for p in files}
    scores = [line for line in (folder / "stdout.txt").read_text().splitlines() if "mIoU" in line]
    return {name: content(path) for name, path in found.items() if not IGNORED.search(name)} | dict(printed=scores)


def compare(expected: dict, got: dict) -> list[str]: # what differs
    more, fewer = sorted(set(got) - set(expected)), sorted(set(expected) - set(got))
    differ = [name for name in expected if name in got and expected[name] != got[name]]
    words = {"is there too": more, "is missing": fewer, "differs": differ}
    return [f"{names[0]} {what}{f' and {len(names) - 1} more' * (len(names) > 1)}" for what, names in words.items() if names]


def held_locks(folder: Path) -> list[str]:
    "Lock files that are held."
    held = []
    for path in folder.rglob(".lock"):
        with path.open("r+") as file:
            try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError: held.append(f"{path} is locked")
    return held


# --- trials -----------------------------------------------------------------------------------------------------------

@dataclass
class Whole:
    "The uninterrupted command."
    result: dict
    seconds: float
    calls: dict # point -> how often


class Trials:
    "Makes trials in a folder; each begins with a fresh copy of the inputs."
    def __init__(self, folder: Path):
        self.folder = folder
        self.wholes = {}
        self.kills = 0 # that were meant
        self.late = 0  # that came when the command had ended by itself
        self.model = folder / "inputs"
        self.model.mkdir()

    def start(self, name: str) -> Path:
        folder = self.folder / "trial"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.model, folder)
        if name != "prepare": shutil.rmtree(folder / "out")
        return folder

    def must(self, name: str, folder: Path) -> None:
        status, wrong, _ = call(name, folder)
        if status or wrong: sys.exit(f"{name} fails without any kill: status {status}; {wrong}\n{(folder / 'stderr.txt').read_text()[-3000:]}")

    def make_inputs(self) -> None:
        if not os.fork():
            inputs(self.model)
            os._exit(0)
        os.wait()
        self.must("train", self.start("train"))
        shutil.copy(self.folder / "trial/out/checkpoint.pt", self.model / "checkpoint.pt")

    def whole(self, name: str) -> Whole:
        if name not in self.wholes:
            folder = self.start(name)
            begun = time.time()
            self.must(name, folder)
            self.wholes[name] = Whole(result(folder), time.time() - begun, dict(zip(POINTS, calls[:])))
        return self.wholes[name]

    def trial(self, name: str, kills: list[Kill]) -> list[str]: # what did not hold
        "Kill a command so many times, then let it finish and compare."
        whole, folder, wrong = self.whole(name), self.start(name), []
        for kill in kills:
            ended = call(name, folder, kill, whole.seconds)
            wrong += ended.wrong
            self.kills += 1
            self.late += not ended.struck
        status, again, _ = call(name, folder)
        wrong += again
        if status: return [*wrong, f"called again, it ends with status {status}: {(folder / 'stderr.txt').read_text().strip()[-300:]!r}"]
        return [*wrong, *compare(whole.result, result(folder)), *held_locks(folder)]


def draw(rng: random.Random, whole: Whole) -> Kill:
    "How to kill a command: a signal, whom, and when."
    how = rng.choice(SIGNALS)
    seen = [point for point, n in whole.calls.items() if n]
    if not seen or rng.random() < .4: return Kill(how, rng.choice(["parent", "group"]), moment=rng.random(), twice=rng.random() < .2)
    point = rng.choice(seen)
    return Kill(how, rng.choice(["parent", "group", "itself"]), 0., point, rng.randint(1, whole.calls[point]), rng.random() < .5,
                rng.random() < .2)


def plan(n: int, names: list[str], first: int) -> list[tuple[str, int]]: # command, number of its trial
    "Which commands are tried, in turns."
    turns = [name for time in range(max(OFTEN.values())) for name in names if time < OFTEN.get(name, 1)]
    seen = Counter()
    trials = []
    for i in range(n):
        name = turns[i % len(turns)]
        trials.append((name, first + seen[name]))
        seen[name] += 1
    return trials


def table(tried: Counter, held: Counter) -> str: # of (command, signal)
    lines = [f"{'':18}" + "".join(f"{how:>22}" for how in (*SIGNALS, "all")), f"{'':18}" + "  tried held not held" * 4]
    def line(name, pick):
        cells = []
        for how in (*SIGNALS, None):
            t, h = (sum(n for key, n in counts.items() if pick(key[0]) and how in (None, key[1])) for counts in (tried, held))
            cells.append(f"{t:>8}{h:>5}{t - h:>9}")
        return f"{name:18}" + "".join(cells)
    lines += [line(name, name.__eq__) for name in dict.fromkeys(key[0] for key in tried)]
    return "\n".join([*lines, line("all", lambda _: True)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=200, help="trials (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial of each command")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(COMMANDS),
                        help=f"commands to kill (default: {','.join(COMMANDS)})")
    args = parser.parse_args()
    for name in args.only:
        if name not in COMMANDS: parser.error(f"unknown command {name!r}; allowed: {', '.join(COMMANDS)}")
    begun = time.time()
    load_everything()
    tried, held = Counter(), Counter()
    with tempfile.TemporaryDirectory() as tmp:
        trials = Trials(Path(tmp))
        trials.make_inputs()
        try:
            for name, number in plan(args.n, args.only, args.first):
                rng = random.Random(f"{args.seed} {name} {number}")
                kills = [draw(rng, trials.whole(name)) for _ in range(rng.choice([1, 1, 2]))]
                wrong = trials.trial(name, kills)
                tried[name, kills[0].signal] += 1
                held[name, kills[0].signal] += not wrong
                if wrong:
                    print(f"not held: {name}: {', then '.join(map(str, kills))}: {'; '.join(wrong)}; again with --seed {args.seed} "
                          f"--only {name} --first {number} --n 1", flush=True)
        except KeyboardInterrupt: print("stopped; so far:")
    print(table(tried, held))
    print(f"{tried.total()} trials with {trials.kills} kills, {trials.late} of which came when the command had ended by itself; "
          f"{time.time() - begun:.0f} s")
    return int(held.total() < tried.total())


if __name__ == "__main__": sys.exit(main())
