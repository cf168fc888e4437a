"""How do readers handle damaged and hostile inputs? `python tests/fuzz.py [--n 100000] [--seed 0] [--only images,weights] [--keep DIR]`

`corpus/make.py` makes whole and hostile inputs, `corpus/damage.py` damages them, `corpus/readers.py` says what reads them. An input
follows from seed, reader and number alone: `--at NUMBER` makes one again and shows its traceback.

Held: a value, or an error that the command line turns into its message: one line of at most 500 characters, which names the file
and advises nothing unsafe. Not held: any other error, a crash, no answer in ten seconds of work, 2 GB of memory, a printed traceback, and
what hostile files would do if they were run.
"""
import argparse, json, mmap, os, random, resource, select, shutil, signal, sys, tempfile, time, traceback, warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

os.environ |= dict(OMP_NUM_THREADS="1", TQDM_DISABLE="1", ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
sys.path[:0] = [str(Path(__file__).parent / "corpus"), str(Path(__file__).parents[1])]
import causal_tune, make
from readers import LONGEST, READERS, SHARES, Enough, Reader

PACKAGE = Path(causal_tune.__file__).parent
EXPECTED = (ValueError, OSError, FloatingPointError)
UNSAFE = ("weights_only", "arbitrary code", "unsafely", "trusted source")
SECONDS, BYTES = 10, 2 << 30
BATCH = 400  # inputs of a process
MEMORY = "/dev/shm"  # where files cost no disk


# --- one input ---------------------------------------------------------------------------------------------------------

class TooLong(BaseException): pass


class Case(NamedTuple):
    given: object  # the input
    path: Path | None  # the file it is in, None where it is none
    read: str  # the name of the function that reads it


class Verdict(NamedTuple):
    read: str  # which function read it
    kind: str  # empty if it was held
    where: str  # innermost function of the package
    said: str


def case_of(reader: Reader, name: str, seed: int, number: int, folder: Path) -> Case:
    "An input, as it follows from its number; files are written."
    rng = random.Random(f"{seed} {name} {number}")
    given = rng.choice(reader.seeds)
    with deeper(20_000): given = reader.damage(rng, given)
    read = rng.choice(list(reader.reads))
    if not reader.suffixes: return Case(given, None, read)
    path = folder / f"{reader.name}{rng.choice(reader.suffixes)}"
    path.write_bytes(given)
    return Case(given, path, read)


@contextmanager
def deeper(limit: int):
    "Inside, calls may nest deeper."
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try: yield
    finally: sys.setrecursionlimit(before)


def judged(reader: Reader, case: Case, folder: Path) -> Verdict:
    read = reader.reads[case.read]
    kind = where = message = ""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try: read(case.given if case.path is None else case.path)
    except Enough: pass
    except EXPECTED as err:
        message = str(err).replace(f"{folder}/", "")
        kind, where = faults(err, message, case.path, reader.many), place(err)
    except TooLong as err: kind, where = "no answer", place(err)
    except BaseException as err:
        kind, where, message = type(err).__name__, place(err), str(err)
        if kind == "AssertionError" and ours(err): kind, where = "wrong value", case.read
    finally: signal.setitimer(signal.ITIMER_PROF, 0)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most > BYTES >> 10: kind = "memory"
    canary = folder / make.CANARY
    if canary.exists():
        kind = "it was run"
        shutil.rmtree(canary) if canary.is_dir() else canary.unlink()
    return Verdict(case.read, kind, where, message[:200])


def faults(err, message: str, path: Path | None, many: bool) -> str:
    "The fault of a message; empty if there is none."
    kind, lines = type(err).__name__, message.splitlines()
    if not message.strip(): return f"{kind} without a word"
    if any(word in message for word in UNSAFE): return "unsafe advice"
    if not many and len(lines) > 1: return f"{kind} of several lines"
    if max(map(len, lines)) > LONGEST: return f"{kind} too long"
    if path is not None and path.stem not in message: return f"{kind} without the file's name"
    return ""


def place(err) -> str:
    "The innermost function of the package that an error came through."
    frames = [f for f in traceback.extract_tb(err.__traceback__) if PACKAGE in Path(f.filename).parents]
    return f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "outside"


def ours(err) -> bool:
    "Whether it was raised by the check of the value rather than the reader."
    return traceback.extract_tb(err.__traceback__)[-1].filename.endswith("readers.py")


# --- many, in processes that may die -----------------------------------------------------------------------------------

def quiet(folder: Path):
    "Redirect output to a file; returns a function that tells whether a traceback was printed since its last call."
    file = os.open(folder / "printed", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2): os.dup2(file, stream)
    def noisy():
        for stream in (sys.stdout, sys.stderr): stream.flush()
        size = os.lseek(file, 0, os.SEEK_CUR)
        if not size: return False
        text = os.pread(file, 100_000, max(0, size - 100_000))
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        return b"Traceback (most recent" in text
    return noisy


def limited():
    "Limit this process to 2 GB beyond its present memory."
    statm = Path("/proc/self/statm")
    if not statm.exists(): return
    used = int(statm.read_text().split()[0]) * mmap.PAGESIZE
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES,) * 2)


def child(reader, name, seed, numbers, folder, pipe):
    "Judges inputs and writes a line for each; does not return."
    noisy = quiet(folder)
    limited()
    warnings.simplefilter("ignore")
    def stop(*_): raise TooLong
    signal.signal(signal.SIGPROF, stop)
    os.chdir(folder)
    for number in numbers:
        verdict = judged(reader, case_of(reader, name, seed, number, folder), folder)
        if noisy(): verdict = verdict._replace(kind="a printed traceback")
        os.write(pipe, (json.dumps([number, *verdict]) + "\n").encode())
    os._exit(0)


def verdicts(reader, name, seed, n, folder):
    "Yields number and verdict of n inputs. A process that dies or hangs is noticed, and the next goes on behind that input."
    first = 0
    while first < n:
        numbers = range(first, min(n, first + BATCH))
        come, go = os.pipe()
        process = os.fork()
        if not process:
            os.close(come)
            try: child(reader, name, seed, numbers, folder, go)
            finally: os._exit(99)
        os.close(go)
        for first, verdict in received(come, process, numbers): yield first, verdict
        first += 1


def received(pipe, process, numbers):
    last, text, ready = numbers.start - 1, b"", True
    with os.fdopen(pipe, "rb", buffering=0) as lines:
        while ready and last < numbers.stop - 1:
            ready, *_ = select.select([lines], [], [], 60 + 12 * SECONDS) # a busy machine gives it little
            if not ready: os.kill(process, signal.SIGKILL)
            part = lines.read(65536) if ready else b""
            if not part: break
            *whole, text = (text + part).split(b"\n")
            for line in whole:
                last, *verdict = json.loads(line)
                yield last, Verdict(*verdict)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if last < numbers.stop - 1: # the next one killed it
        yield last + 1, Verdict("?", f"crash ({status})" if ready else "no answer, killed", "", "")


@contextmanager
def opened(name: str):
    "A reader, and its folder, deep enough that what leads upwards stays inside."
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None) as top:
        folder = Path(top) / "a" / "b" / "c" / "d"
        folder.mkdir(parents=True)
        yield READERS[name](folder), folder


def fuzz(names: list[str], n: int, seed: int, keep: Path | None = None) -> tuple[dict, dict]:
    "Tries n inputs; returns reader -> Counter of held and not held, and distinct failure -> numbers and messages."
    scores, failures = {}, {}
    for name in names:
        start = time.time()
        own = max(1, round(n * SHARES[name] / sum(SHARES[other] for other in names)))
        count = scores[name] = Counter()
        with opened(name) as (reader, folder):
            for number, verdict in verdicts(reader, name, seed, own, folder):
                count["not held" if verdict.kind else "held"] += 1
                if not verdict.kind: continue
                found = failures.setdefault((name, *verdict[:3]), [])
                found.append((number, verdict.said))
                if keep and len(found) == 1: store(keep, case_of(reader, name, seed, number, folder), f"{name}-{seed}-{number}")
        rate = own / (time.time() - start)
        print(f"{name:<12}{own:>8} tried {count['held']:>8} held {count['not held']:>6} not held {rate:>7.0f}/s", flush=True)
    return scores, failures


def store(keep: Path, case: Case, name: str):
    keep.mkdir(parents=True, exist_ok=True)
    if case.path: (keep / f"{name}{case.path.suffix}").write_bytes(case.given)
    else: (keep / f"{name}.txt").write_text(repr(case.given), errors="backslashreplace")


def again(name: str, seed: int, number: int):
    "One input once more, with its traceback."
    with opened(name) as (reader, folder):
        case = case_of(reader, name, seed, number, folder)
        print(case.read, case.path, repr(case.given)[:2000])
        os.chdir(folder)
        print("value:", reader.reads[case.read](case.path or case.given))


def main(words=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=100_000, help="inputs in all (default: 100000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=f"readers, of {','.join(READERS)}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder for the first input of each failure")
    parser.add_argument("--at", type=int, metavar="NUMBER", help="this input alone, with its traceback")
    args = parser.parse_args(words)
    names = args.only.split(",") if args.only else list(READERS)
    if args.at is not None: return again(names[0], args.seed, args.at)
    scores, failures = fuzz(names, args.n, args.seed, args.keep)
    for (name, read, kind, where), found in sorted(failures.items()):
        number, message = found[0]
        print(f"not held: {name} {read}: {kind} in {where or '?'}, {len(found)} times, {message[:120]!r}; "
              f"--seed {args.seed} --only {name} --at {number}")
    held, lost = (sum(count[what] for count in scores.values()) for what in ("held", "not held"))
    print(f"{held + lost} tried, {held} held, {lost} not held ({len(failures)} kinds)")
    return int(lost > 0)


if __name__ == "__main__": sys.exit(main())
