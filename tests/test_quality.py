"""The benchmark as a process that is stopped and started again."""
import json, os, signal, subprocess, sys, time
from pathlib import Path
import pytest
from causal_tune.cli import main
from causal_tune.compare.experiments import EXPERIMENTS
from causal_tune.research.statistics import read_table
from causal_tune.training.recipe import recipe_to_dict

pytestmark = pytest.mark.slow
SCRIPT = """
import json, sys
from dataclasses import replace
from pathlib import Path
from causal_tune.compare import experiments as quality
from causal_tune.compare.experiments import Experiment, bench_quality
from causal_tune.training.recipe import recipe_to_dict

toy = lambda domain, split, n: f"toyscapes:domain={domain},split={split},n={n}"
recipe = replace(quality.EXPERIMENTS["toyscapes"].recipe, train=toy("clear", "train", 4), validate=toy("clear", "val", 2), head="linear",
                 targets=tuple(toy(d, "test", 3) for d in ("clear", "fog", "snow")), crop=(32, 48), iterations=20, batch_size=2,
                 eval_size=(48, 64), save_every=5)
quality.EXPERIMENTS["toyscapes"] = Experiment(recipe, "clear", (recipe.train, recipe.validate), ("none", "causal_tune zero"),
                                              {"weathers": ["fog", "snow"]})
quality.HEAD_LRS, quality.LR_MULTIPLES, quality.SEARCH_SEEDS = (1e-3,), (1.,), (101,)

if __name__ == "__main__":
    out = Path(sys.argv[1])
    (out / "toyscapes").mkdir(parents=True, exist_ok=True)
    (out / "toyscapes" / "band.json").write_text(json.dumps(dict(band="ideal:low=0.001,high=0.55", recipe=recipe_to_dict(recipe))))
    bench_quality(["toyscapes"], out, seeds=(1, 2), jobs=int(sys.argv[2]), only=["causal_tune zero"], tables=out / "tables")
"""
ENV = {k: v for k, v in os.environ.items() if not k.startswith("TQDM")} | dict(OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("quality") / "bench.py"
    path.write_text(SCRIPT)
    return path


def begin(script, out, jobs):
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore the signal
    return subprocess.Popen([sys.executable, str(script), str(out), str(jobs)], env=ENV, start_new_session=True, preexec_fn=heed,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(out): return sorted(p.parent.name for p in Path(out).glob("toyscapes/runs/*/results.json"))


def test_stopped_and_started_again(script, tmp_path):
    whole = begin(script, tmp_path / "whole", 1)
    said, err = whole.communicate(timeout=400)
    assert whole.returncode == 0, err[-2000:]
    assert finished(tmp_path / "whole") == sorted(f"{v}-{s}" for v in ("none", "rein", "causal_tune zero") for s in (1, 2))

    halves = begin(script, tmp_path / "halves", 2)
    until = time.time() + 200
    while not finished(tmp_path / "halves") and time.time() < until and halves.poll() is None: time.sleep(.1)
    assert halves.poll() is None, halves.communicate()[1][-2000:]
    os.killpg(halves.pid, signal.SIGINT)
    halves.communicate(timeout=100)
    done = finished(tmp_path / "halves")
    assert halves.returncode != 0 and 1 <= len(done) < 6, done

    again = begin(script, tmp_path / "halves", 1)
    stamps = {name: (tmp_path / "halves/toyscapes/runs" / name / "results.json").stat().st_mtime_ns for name in done}
    assert again.communicate(timeout=400) and again.returncode == 0
    for name in done: assert (tmp_path / "halves/toyscapes/runs" / name / "results.json").stat().st_mtime_ns == stamps[name]
    for kind in ("scores", "means", "differences", "worth", "rates"):
        one, other = (read_table(tmp_path / part / "tables" / f"quality_toyscapes_{kind}.csv") for part in ("whole", "halves"))
        assert one.drop(columns="version", errors="ignore").equals(other.drop(columns="version", errors="ignore")), kind
    report = (tmp_path / "halves" / "toyscapes" / "report.html").read_text()
    assert "Differences to none" in report and "causal_tune zero" in report and "Measured band" not in report
    assert "# causal-tune bench-quality toyscapes; causal_tune" in (tmp_path / "halves/tables/quality_toyscapes_means.csv").read_text()


ENDLESS = """
import sys
from dataclasses import replace
from causal_tune.compare.grid import make_grid, run_grid
from causal_tune.compare.experiments import EXPERIMENTS

recipe = replace(EXPERIMENTS["toyscapes"].recipe, train="toyscapes:domain=clear,split=train,n=4", targets=(), validate="", head="linear",
                 crop=(32, 48), iterations=10 ** 6, batch_size=2, save_every=10 ** 6)
if __name__ == "__main__": run_grid(make_grid(recipe, {"none": {}}, (1, 2)), sys.argv[1], jobs=2)
"""


def test_ctrl_c_to_the_parent_alone_stops_its_workers(tmp_path):
    "As from a scheduler: runs end between two steps with their state saved, not when they are finished."
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    process = begin(script, tmp_path / "runs", 2)
    logs = [tmp_path / "runs" / f"none-{seed}" / "log.csv" for seed in (1, 2)]
    until = time.time() + 200
    while not all(log.exists() for log in logs) and time.time() < until and process.poll() is None: time.sleep(.1)
    assert process.poll() is None, process.communicate()[1][-2000:]
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=100)
    assert process.returncode and all(log.with_name("resume.pt").exists() for log in logs)


WRONG = [(["cityscapes"], "Unknown experiment"), (["--lr", "1"], "sets lr itself"), (["toyscapes", "--lr", "1"], "sets lr itself"),
         (["toyscapes", "--only", "reinn"], "Did you mean 'rein'"), (["toyscapes", "--iteration", "3"], "Did you mean 'iterations'")]


def test_wrong_words(tmp_path, capsys):
    (tmp_path / "toyscapes").mkdir()
    (tmp_path / "toyscapes" / "band.json").write_text(json.dumps(dict(band="dog", recipe=recipe_to_dict(EXPERIMENTS["toyscapes"].recipe))))
    for words, said in WRONG:
        assert main(["bench-quality", *words, "--out", str(tmp_path)]) == 2, words
        assert said in capsys.readouterr().err, words
