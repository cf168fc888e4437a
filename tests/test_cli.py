"""The command line: what it says, what it refuses, and that an interruption changes no result."""
import csv, re, signal, subprocess, sys
from functools import partial
from pathlib import Path
from threading import Timer
import numpy as np
import pytest
import torch
from PIL import Image
from conftest import COMMAND, ENV, trained

COMMANDS = ("demo", "train", "eval", "predict", "recipes", "lab", "pretrain")


def test_help_names_every_command(cli):
    done = cli("--help")
    assert done.returncode == 0
    for name in COMMANDS: assert re.search(rf"^\s+{name}\b", done.stdout, re.M), name


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command(cli, command):
    done = cli(command, "--help")
    assert done.returncode == 0 and f"causal-tune {command}" in done.stdout


def test_recipes_are_listed(cli):
    from causal_tune.recipes import RECIPES
    done = cli("recipes")
    assert done.returncode == 0
    for name in RECIPES: assert name in done.stdout


@pytest.mark.parametrize("words, expected", [
    (["train", "demoo"], "'demo'"),
    (["train", "demo", "--iteratoins", "5"], "'iterations'"),
    (["train", "demo", "--lr", "fast"], "lr='fast'"),
    (["train", "demo", "--lr", "0"], "greater than 0"),
    (["train", "demo", "--lr"], "needs a value"),
    (["train", "demo", "--adapter", "causal_tun", "--weights", "WEIGHTS"], "'causal_tune'"),
    (["train", "demo", "--train", "toyscape:n=4"], "'toyscapes'"),
    (["train", "demo", "--weights", "nowhere.safetensors"], "nowhere.safetensors"),
    (["train", "camvid_day2dusk", "--root", "nowhere"], "nowhere"),
    (["eval", "missing.pt"], "missing.pt"),
    (["predict", "missing.pt", "image.png"], "missing.pt"),
    (["trian", "demo"], "train"),
])
def test_wrong_input_is_one_message(words, expected, weights, tmp_path, monkeypatch, capsys):
    from causal_tune.cli import main
    monkeypatch.chdir(tmp_path)
    try: status = main([str(weights) if w == "WEIGHTS" else w for w in words])
    except SystemExit as stop: status = stop.code  # of argparse
    assert status == 2 and expected in capsys.readouterr().err


def test_wrong_input_shows_no_traceback(cli):
    done = cli("train", "demo", "--iteratoins", "5")
    assert done.returncode == 2 and "'iterations'" in done.stderr and "Traceback" not in done.stderr


def test_options_are_not_abbreviated():
    "`demo --seed 7` is the recipe's seed, not `--seeds 7`."
    from causal_tune.cli import make_parser
    args, rest = make_parser().parse_known_args(["demo", "--seed", "7"])
    assert rest == ["--seed", "7"]


@pytest.fixture(scope="module")
def run(tmp_path_factory, weights):
    "A finished run of one iteration."
    out = tmp_path_factory.mktemp("run")
    words = ["train", "demo", "--out", out, "--weights", weights, "--iterations", "1", "--batch_size", "2",
             "--crop", "32x48", "--train", "toyscapes:domain=clear,split=train,n=4",
             "--targets", "toyscapes:domain=fog,split=test,n=1", "--lr", "2e-4", "--adapter", "causal_tune"]
    done = subprocess.run([COMMAND, *map(str, words)], cwd=out, env=ENV, timeout=90, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out, done


def test_train_overrides_fields(run):
    content = torch.load(run[0] / "checkpoint.pt", weights_only=True)
    assert content["recipe"]["lr"] == 2e-4 and content["recipe"]["adapter"] == "causal_tune"
    assert "fog" in run[1].stdout and "mIoU" in run[1].stdout


def test_eval_takes_other_targets(run, cli):
    done = cli("eval", run[0] / "checkpoint.pt", "--targets", "toyscapes:domain=night,split=test,n=1",
               "toyscapes:domain=snow,split=test,n=1")
    assert done.returncode == 0, done.stderr
    assert "night" in done.stdout and "snow" in done.stdout and "mean" in done.stdout


def test_predict_writes_labels_of_the_images_size(run, cli, tmp_path):
    size = 70, 51  # width, height; neither is a multiple of the patch
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / name)
    done = cli("predict", run[0] / "checkpoint.pt", tmp_path / "a.png", tmp_path / "b.jpg", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for stem in "ab":
        labels = [np.asarray(im) for p in (tmp_path / "out").glob(f"{stem}*.png") if (im := Image.open(p)).mode in "LP"]
        assert len(labels) == 1 and labels[0].shape == size[::-1] and labels[0].max() < 19


def interrupt(words, after):
    "Start a run, press Ctrl-C after so many steps, and return its exit status and messages."
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore the signal
    with subprocess.Popen([COMMAND, *map(str, words)], env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          preexec_fn=heed) as process:
        watchdog = Timer(90, process.kill)
        watchdog.start()
        seen = b""
        while piece := process.stderr.read1(4096):
            steps = re.findall(rb"(\d+)/\d+ \[", seen := seen + piece)
            if steps and int(steps[-1]) >= after: break
        process.send_signal(signal.SIGINT)
        seen += process.stderr.read()
        watchdog.cancel()
    return process.returncode, seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_interrupted_and_resumed_equals_uninterrupted(tiny, cli, tmp_path):
    words = ["train", "demo", *tiny, "--adapter", "causal_tune", "--init", "zero", "--lr", "1e-3", "--iterations", "20"]
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert cli(*words, "--out", whole).returncode == 0
    status, messages = interrupt([*words, "--out", pieces], after=8)
    assert status == 130 and "Traceback" not in messages, messages[-2000:]
    assert (pieces / "resume.pt").exists() and not (pieces / "checkpoint.pt").exists()
    done = cli(*words, "--out", pieces)
    assert done.returncode == 0, done.stderr
    a, b = (trained(f / "checkpoint.pt") for f in (whole, pieces))
    assert a.keys() == b.keys()
    differ = [k for k in a if not torch.equal(a[k], b[k])]
    assert not differ, f"{len(differ)} of {len(a)} tensors differ, such as {differ[:3]}"
    logs = [[(r["iteration"], r["loss"], r["lr"]) for r in csv.DictReader((f / "log.csv").open())]
            for f in (whole, pieces)]
    assert logs[0] == logs[1] and len(logs[0]) == 20


def test_two_processes_equal_two_batches_of_one(tiny, tmp_path):
    words = ["train", "demo", *tiny, "--adapter", "causal_tune", "--init", "zero", "--head", "linear", "--lr", "1e-4",
             "--iterations", "4"]
    launch = [Path(sys.executable).parent / "torchrun", "--standalone", "--nproc_per_node", "2", COMMAND]
    for out, start, more in (("two", launch, []), ("one", [COMMAND], ["--accumulate", "2"]), ("half", [COMMAND], [])):
        done = subprocess.run([str(w) for w in [*start, *words, *more, "--out", tmp_path / out]], env=ENV, timeout=120,
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    # running statistics of BatchNorm are those of the first process, and no part of the training step
    two, one, half = ({k: v for k, v in trained(tmp_path / f / "checkpoint.pt").items()
                       if "running" not in k and "num_batches" not in k} for f in ("two", "one", "half"))
    gap = lambda a, b: max((a[k] - b[k]).abs().max().item() for k in a)
    assert gap(two, one) < 2e-5, gap(two, one)
    assert gap(half, one) > 1e-4  # so the comparison does see the second process's images
