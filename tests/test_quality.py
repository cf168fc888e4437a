"""A grid that is stopped from outside, and the benchmark's errors. Resuming is tested by `kills.py`."""
import json, os, signal, subprocess, sys, time
import pytest
from causal_tune.cli import main
from causal_tune.compare.experiments import DEFAULT_EXPERIMENTS, EXPERIMENTS
from causal_tune.training.recipe import recipe_to_dict

pytestmark = pytest.mark.slow
ENV = {k: v for k, v in os.environ.items() if not k.startswith("TQDM")} | dict(OMP_NUM_THREADS="1")


def begin(script, out):
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore the signal
    return subprocess.Popen([sys.executable, str(script), str(out)], env=ENV, start_new_session=True, preexec_fn=heed,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


ENDLESS = """
import sys
from dataclasses import replace
from causal_tune.compare.grid import make_grid, run_grid
from causal_tune.compare.experiments import DEFAULT_EXPERIMENTS, EXPERIMENTS

recipe = replace(EXPERIMENTS["toyscapes"].recipe, train="toyscapes:domain=clear,split=train,n=4", targets=(), validate="", head="linear",
                 crop=(32, 48), iterations=10 ** 6, batch_size=2, save_every=10 ** 6)
if __name__ == "__main__": run_grid(make_grid(recipe, {"none": {}}, (1, 2)), sys.argv[1], jobs=2)
"""


def test_ctrl_c_to_the_parent_alone_stops_its_workers(tmp_path):
    "As from a scheduler: runs end between two steps with their state saved, not when they are finished."
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    process = begin(script, tmp_path / "runs")
    logs = [tmp_path / "runs" / f"none-{seed}" / "log.csv" for seed in (1, 2)]
    until = time.time() + 200
    while not all(log.exists() for log in logs) and time.time() < until and process.poll() is None: time.sleep(.1)
    assert process.poll() is None, process.communicate()[1][-2000:]
    time.sleep(5) # for the first step
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=100)
    assert process.returncode and all(log.with_name("resume.pt").exists() for log in logs)


WRONG = [(["cityscapes"], "Unknown experiment"), (["--lr", "1"], "sets lr itself"), (["toyscapes", "--lr", "1"], "sets lr itself"),
         (["toyscapes", "--only", "reinn"], "Did you mean 'rein'"), (["toyscapes", "--iteration", "3"], "Did you mean 'iterations'")]


def test_wrong_words_and_a_help_that_names_every_experiment(tmp_path, capsys):
    (tmp_path / "toyscapes").mkdir()
    (tmp_path / "toyscapes" / "band.json").write_text(json.dumps(dict(band="dog", recipe=recipe_to_dict(EXPERIMENTS["toyscapes"].recipe))))
    for words, said in WRONG:
        assert main(["bench-quality", *words, "--out", str(tmp_path)]) == 2, words
        assert said in capsys.readouterr().err, words
    assert main(["bench-quality", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(f"{name}," in said or f"{name};" in said or f"{name} (default" in said for name in EXPERIMENTS), said
    assert f"{', '.join(DEFAULT_EXPERIMENTS)} (default" in said
