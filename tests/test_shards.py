"""A grid that the tasks of a SLURM array share has the rows of one that a single process makes, also where a task is interrupted and queued again.

The job script is the one of the tutorial `cluster`, word by word; this test simulates SLURM: it sets the variables of an array, sends USR1, and answers to `scontrol`."""
import json, os, re, signal, subprocess, sys, time
from dataclasses import replace
import pytest
from conftest import ENV, ROOT
from causal_tune.compare.grid import on_shard, run_grid
from causal_tune.training.recipe import Recipe

pytestmark = pytest.mark.slow
GRID = """
import sys
sys.path.insert(0, {tests!r})
from test_shards import grid_of, on_shard, run_grid
with on_shard(None) as sharded:
    assert sharded
    run_grid(grid_of({weights!r}), {folder!r})
"""


def grid_of(weights):
    one = Recipe("small", weights=weights, train="toyscapes:domain=clear,split=train,n=4", head="linear", crop=(32, 48), tracker="none",
                 iterations=24, save_every=4, batch_size=2, eval_size=(32, 48), targets=("toyscapes:domain=fog,split=test,n=2",))
    return {f"none-{seed}": replace(one, seed=seed) for seed in range(4)}


def job_script():
    text = "".join("".join(c["source"]) for c in json.loads((ROOT / "nbs/tutorials/cluster.ipynb").read_text())["cells"])
    return next(script for script in re.findall(r"```bash\n(.*?)```", text, re.S) if "--array" in script)


def without_version(rows): return [{k: v for k, v in row.items() if k != "version"} for row in rows]


def test_array_interrupted_and_requeued(weights, tmp_path):
    command = next(line for line in job_script().splitlines() if line.startswith("causal-tune")).removesuffix(" &")
    shared = tmp_path / "shared"
    program = tmp_path / "grid.py"
    program.write_text(GRID.format(tests=str(ROOT / "tests"), weights=str(weights), folder=str(shared)))
    (tmp_path / "job.sh").write_text(job_script().replace(command, f"{sys.executable} {program}"))
    (tmp_path / "scontrol").write_text(f"#!/bin/bash\necho \"$@\" >> {tmp_path}/asked\n")
    (tmp_path / "scontrol").chmod(0o755)
    def task(number):
        array = dict(SLURM_ARRAY_JOB_ID="77", SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_TASK_COUNT="2", SLURM_ARRAY_TASK_MIN="0", SLURM_ARRAY_TASK_STEP="1")
        return subprocess.Popen(["bash", tmp_path / "job.sh"], env=ENV | array | dict(PATH=f"{tmp_path}:{os.environ['PATH']}"))
    first = task(0)
    limit = time.time() + 240
    while not list(shared.glob("*/resume.pt")) and time.time() < limit: time.sleep(.05)
    begun, = (path.parent for path in shared.glob("*/resume.pt"))
    assert begun.name == "none-0" # the first of its share
    first.send_signal(signal.SIGUSR1)
    assert first.wait(240) == 1 and (tmp_path / "asked").read_text() == "requeue 77_0\n"
    tasks = [task(0), task(1)]
    assert [one.wait(480) for one in tasks] == [0, 0]
    rows = run_grid(grid_of(str(weights)), shared) # nothing is left to do: it reads
    assert without_version(rows) == without_version(run_grid(grid_of(str(weights)), tmp_path / "alone", jobs=1))


def test_what_a_dead_task_left_is_taken_over(weights, tmp_path):
    "The second of two tasks alone computes all runs."
    grid = {name: replace(r, iterations=2) for name, r in grid_of(str(weights)).items()}
    with on_shard("1/2"): assert len(run_grid(grid, tmp_path)) == 4
    order = sorted(tmp_path.glob("*/results.json"), key=lambda path: path.stat().st_mtime_ns)
    assert [path.parent.name for path in order] == ["none-1", "none-3", "none-0", "none-2"]
