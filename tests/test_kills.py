"""Killed commands lose nothing: a trial of each by `kills.py`, and cases that its forks cannot cover."""
import os, re, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import pytest
from conftest import COMMAND, ENV, ROOT, command, run_forked
from causal_tune.core.files import is_process_running

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
sys.path.insert(0, str(ROOT / "tests"))
import kills  # noqa: E402


def test_every_command_is_killed():
    "Each at least once; `python tests/kills.py` tries 200."
    def call():
        sys.argv[1:] = ["--n", "9", "--seed", "1"]
        return kills.main()
    done = run_forked(call, ROOT, ENV | dict(TQDM_DISABLE="1", CUDA_VISIBLE_DEVICES=""), 900)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    last = next(line for line in done.stdout.splitlines() if line.startswith("all "))
    assert last.split()[-3:] == ["9", "9", "0"]


def test_what_is_lost_is_seen(tmp_path):
    "The comparison notices a file that is missing, added or other, and a lock that is held."
    made = tmp_path / "out"
    made.mkdir()
    (tmp_path / "stdout.txt").write_text("  fog  mIoU  5.0 %\nRecipe: none\n")
    for name in ("a.png", "b.png"): (made / name).write_bytes(name.encode())
    (made / "log.csv").write_text("iteration,loss,lr,seconds\n0,1,.1,3\n1,1,.1,4\n")
    (made / ".lock").write_text("1\n")
    whole = kills.result(tmp_path)
    assert set(whole) == {"out/a.png", "out/b.png", "out/log.csv", "printed"} and kills.compare(whole, kills.result(tmp_path)) == []
    (made / "log.csv").write_text("iteration,loss,lr,seconds\n0,1,.1,5\n1,1,.1,6\n")
    assert kills.compare(whole, kills.result(tmp_path)) == [], "times may differ"
    (made / "log.csv").write_text("iteration,loss,lr,seconds\n0,1,.1,5\n0,1,.1,5\n1,1,.1,6\n")
    (made / "a.png").rename(made / "c.png")
    assert kills.compare(whole, kills.result(tmp_path)) == ["out/c.png is there too", "out/a.png is missing", "out/log.csv differs"]
    holder = "import sys, time; from causal_tune.core.files import folder_lock\nwith folder_lock(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", holder, made], stdout=subprocess.PIPE, env=ENV | dict(PYTHONPATH=str(ROOT)))
    other.stdout.readline()
    assert kills.held_locks(tmp_path) == [f"{made / '.lock'} is locked"]
    other.kill()
    other.wait()
    assert kills.held_locks(tmp_path) == []


def test_processes_of_tests_end_with_pytest(tmp_path):
    (tmp_path / "test_sleeps.py").write_text("import subprocess, sys, time\ndef test_it():\n"
        "    process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "    open('pid', 'w').write(f'{process.pid}\\n')\n    time.sleep(600)\n")
    env = ENV | dict(PYTHONPATH=os.pathsep.join([str(ROOT / "tests"), *sys.path]))
    inner = subprocess.Popen([sys.executable, "-m", "pytest", "-q", "-p", "conftest", "test_sleeps.py"], cwd=tmp_path, env=env, stdout=subprocess.DEVNULL)
    pid = tmp_path / "pid"
    assert until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    inner.kill()
    inner.wait()
    assert until(lambda: not is_process_running(int(pid.read_text())), 10)


# --- workers, as they are started where nothing is forked ---------------------------------------------------------------

def begin(words): return subprocess.Popen([COMMAND, *map(str, words)], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                          text=True, start_new_session=True)


def workers(process): # process ids
    found = []
    for one in kills.alive(process.pid):
        pid = int(one.split()[0])
        if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes(): found.append(pid)
    return found


def until(true, seconds=120):
    limit = time.time() + seconds
    while not true() and time.time() < limit: time.sleep(.1)
    return true()


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core, one process: there are no workers")
def test_workers_that_are_killed_and_workers_whose_parent_is(tiny, tmp_path):
    words = ["demo", *tiny, "--seeds", "1", "--iterations", "100000", "--save_every", "4", "--out", tmp_path / "demo"]
    def under_way(): return len(list(tmp_path.glob("demo/runs/*/resume.pt"))) >= 2
    first = begin(words)
    assert until(under_way), first.communicate()[1] if first.poll() else "no run began"
    os.kill(workers(first)[0], signal.SIGKILL)
    said = first.communicate(timeout=60)[1]
    assert first.returncode == 2 and "Traceback" not in said, said[-2000:]
    line = said.strip().splitlines()[-1]
    assert re.fullmatch(r"causal-tune: A process was killed, perhaps as memory ran out; in progress were causal_tune-0, rein-0\. "
                        r"0 of 3 runs are finished and kept: run the command again to continue, with fewer jobs if it happens again\.", line)

    stopped = time.time()
    second = begin(words)
    assert until(lambda: sum(state.stat().st_mtime > stopped for state in tmp_path.glob("demo/runs/*/resume.pt")) == 2) # past the imports
    assert until(lambda: len(workers(second)) == 2 and (tmp_path / "demo/.lock.holder").read_text().startswith(f"{second.pid}\n"))
    third = command(words, tmp_path)
    assert third.returncode == 2 and f"demo is in use by process {second.pid} since" in third.stderr
    second.kill()
    second.wait()
    assert until(lambda: not workers(second), 10), "workers outlive their parent"


# --- a full disk ---------------------------------------------------------------------------------------------------------

@pytest.fixture
def small_disk(tmp_path):
    "A disk of eight megabytes."
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if made.returncode: pytest.skip(f"no disk can be mounted here ({made.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_grid_on_a_full_disk_goes_on_when_there_is_room(weights, small_disk, tmp_path):
    from causal_tune.compare.grid import make_grid, run_grid
    from causal_tune.training.recipe import get_recipe
    recipe = replace(get_recipe("demo"), weights=str(weights), head="linear", crop=(32, 48), eval_size=(32, 48), batch_size=2, iterations=4,
                     save_every=2, precision="no", train=kills.toy("clear", "train", 4), targets=(kills.toy("fog", "test", 2),))
    runs = make_grid(recipe, {"none": {}}, [0, 1])
    expected = run_grid(runs, tmp_path / "whole", jobs=1)
    filler, stopped, rows = small_disk / "filler", [], None
    for free in range(0, 400_000, 20_000):
        filler.unlink(missing_ok=True)
        filler.write_bytes(bytes(max(0, space(small_disk) - free)))
        try: rows = run_grid(runs, small_disk / "grid", jobs=1)
        except OSError as error: stopped.append(str(error))
        else: break
    assert rows == expected and len(stopped) >= 3
    assert all(str(small_disk) in line and "the disk is full" in line for line in stopped), stopped
    assert not list(small_disk.rglob("*~*"))


def space(folder): return os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
