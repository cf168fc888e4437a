"""Two thousand damaged and hostile inputs are handled, and the fuzzer detects violations; `python tests/fuzz.py` tries 100,000."""
import re, sys
from conftest import ENV, ROOT, run_forked

TESTS = ROOT / "tests"


def run(code): # with `fuzz` imported, in a process of its own
    def call():
        sys.path.insert(0, str(TESTS))
        exec(f"import fuzz, sys\n{code}", {})
    return run_forked(call, TESTS, ENV, 600)


def fuzz(*words): return run(f"sys.exit(fuzz.main({list(map(str, words))}))")


def test_every_reader_answers(tmp_path):
    done = fuzz("--n", 2000, "--keep", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = list(map(int, re.findall(r"(\d+) tried", done.stdout)))
    assert sum(tried[:-1]) == tried[-1] >= 1980 and min(tried) > 5


BAD = """
import os, sys, time, traceback
import fuzz, readers
fuzz.SECONDS = 1
def wrong(): raise KeyError("x")
def aside(path): raise ValueError("in.txt is\\nno good")
def nameless(path): raise OSError("no good")
def advised(path): raise ValueError("in.txt: pass weights_only=False")
def long(path): raise ValueError("in.txt" + "x" * 600)
def printed(path):
    try: wrong()
    except KeyError: traceback.print_exc()
def hungry(path): bytearray(5 << 30)
def run(path): open("canary", "w").close()
def hang(path):
    while True: pass
def held(path): raise ValueError("in.txt is no good")
reads = dict(wrong=lambda path: wrong(), dies=lambda path: os.abort(), aside=aside, nameless=nameless, advised=advised, long=long,
             printed=printed, hungry=hungry, run=run, hang=hang, held=held, value=lambda path: 1)
def made(folder): return readers.Reader([b"abc"], lambda rng, given: given, reads, (".txt",))
fuzz.READERS["bad"] = made
fuzz.SHARES["bad"] = 1
sys.exit(fuzz.main(["--only", "bad", "--n", "60"]))
"""

def test_the_fuzzer_notices():
    done = run(BAD)
    said = re.findall(r"^not held: bad (\S+): (.*?) in ", done.stdout, re.M)
    assert done.returncode == 1, done.stdout + done.stderr
    assert dict(said) == {"wrong": "KeyError", "?": "crash (-6)", "aside": "ValueError of several lines", "advised": "unsafe advice",
                          "nameless": "OSError without the file's name", "long": "ValueError too long", "printed": "a printed traceback", "hungry": "MemoryError",
                          "run": "it was run", "hang": "no answer"}


def test_an_input_can_be_made_again():
    first, second = (fuzz("--only", "weights", "--at", 7).stdout for _ in "12")
    assert first and re.sub(r"fuzz-\w+", "", first) == re.sub(r"fuzz-\w+", "", second)
