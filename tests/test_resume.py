"""However a run ends, no half-finished step remains, nothing is lost, and it resumes exactly."""
import os, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import pytest
import torch
from conftest import ENV, trained
from causal_tune.core import files
from causal_tune.training.recipe import get_recipe
from causal_tune.models.segmentor import Segmentor
from causal_tune.training.build import EMA, training_data, weight_decay_at
from causal_tune.training.checkpoint import Log, read_log
from causal_tune.training.loop import Run, Terminated, train
from causal_tune.training.stream import Stream


@pytest.fixture(scope="module")
def recipe(weights):
    "Six steps; the head has BatchNorm, whose statistics change in the forward pass."
    return get_recipe("demo", adapter="causal_tune", init="zero", weights=str(weights), crop=(32, 48), batch_size=2,
                      precision="no", iterations=6, train="toyscapes:domain=clear,split=train,n=4")


@pytest.fixture(scope="module")
def expected(recipe, tmp_path_factory):
    "Result of the uninterrupted run."
    folder = tmp_path_factory.mktemp("whole")
    train(recipe, folder)
    return trained(folder / "checkpoint.pt")


@pytest.fixture
def ctrl_c():
    "Presses Ctrl-C; a shell's background jobs ignore the signal, hence the handler."
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("owner, method", [(Segmentor, "loss"), (torch.optim.AdamW, "step"),
                                           (torch.optim.AdamW, "zero_grad")],
                         ids=["forward", "update", "between steps"])
def test_resume_is_exact(recipe, expected, tmp_path, monkeypatch, ctrl_c, owner, method):
    original, calls = getattr(owner, method), []
    def with_signal(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(1)
        if len(calls) == 3: ctrl_c()
        return result
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(owner, method, with_signal)
        train(recipe, tmp_path)
    assert (tmp_path / "resume.pt").exists() and not (tmp_path / "checkpoint.pt").exists()
    train(recipe, tmp_path)
    result = trained(tmp_path / "checkpoint.pt")
    differ = [k for k in expected if not torch.equal(expected[k], result[k])]
    assert not differ, f"{len(differ)} of {len(expected)} tensors differ, such as {differ[:3]}"


@pytest.fixture(scope="module")
def averaged(recipe):
    "The same with weights averaged from the third step on, and weight decay that fades."
    return replace(recipe, ema_from=3, ema_momentum=.25, decay_end=0., weight_decay=.5)


@pytest.fixture(scope="module")
def average(averaged, tmp_path_factory):
    "Checkpoint of that run without interruption; the weights after each of its steps, and its weight decay."
    folder, weights, decays, update = tmp_path_factory.mktemp("average"), [], [], torch.optim.AdamW.step
    def noted(optimizer, *args):
        result = update(optimizer, *args)
        groups = optimizer.param_groups
        weights.append([p.detach().clone() for group in groups for p in group["params"]])
        decays.append([group["weight_decay"] for group in groups])
        return result
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", noted)
        segmentor = train(averaged, folder)
    return trained(folder / "checkpoint.pt"), segmentor, weights, decays


def test_the_checkpoint_holds_the_average(averaged, average, expected):
    kept, segmentor, weights, decays = average
    means = [w.clone() for w in weights[2]]
    for newest in weights[3:]: means = [.75 * mean + .25 * w for mean, w in zip(means, newest)]
    assert len(weights) == 6 and decays == [[pytest.approx(weight_decay_at(t, averaged)), 0] for t in range(6)]
    assert decays[0][0] == .5 and .03 < decays[5][0] < .04
    found = {f"{part}.{k}": v for part, state in segmentor.trained_state().items() for k, v in state.items()}
    assert_same(kept, found)                                     # what is returned is what is kept
    names = {p: n for n, p in segmentor.named_parameters()}
    ours = [p for p in segmentor.parameters() if p.requires_grad]
    assert len(ours) == len(means)
    for p in ours:
        assert min((p - mean).abs().max() for mean in means if mean.shape == p.shape) < 1e-6, names[p]
    assert any(not torch.equal(kept[k], expected[k]) for k in kept)


@pytest.mark.parametrize("at", [3, 5], ids=["as it begins", "within"])
def test_an_average_resumes_exactly(averaged, average, tmp_path, at):
    train(averaged, tmp_path, stop=at)
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert bool(state["average"]) == (at >= 3) and state["iteration"] == at
    train(averaged, tmp_path)
    assert_same(average[0], trained(tmp_path / "checkpoint.pt"))


def test_training_knows_nothing_of_its_average(recipe, expected, tmp_path, monkeypatch):
    "The trained weights equal those of a run without averaging, also with snapshots."
    watched = replace(recipe, ema_from=1, validate="toyscapes:domain=fog,split=val,n=1", eval_every=2)
    monkeypatch.setattr(EMA, "commit", lambda average: None)
    train(watched, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))


def test_a_state_without_its_average_is_set_aside(averaged, average, tmp_path, capsys):
    train(averaged, tmp_path, stop=4)
    state = torch.load(tmp_path / "resume.pt", weights_only=True)
    state["average"].popitem()
    torch.save(state, tmp_path / "resume.pt")
    train(averaged, tmp_path)
    assert_same(average[0], trained(tmp_path / "checkpoint.pt"))
    assert "resume.pt is damaged" in capsys.readouterr().err


def test_an_average_belongs_to_its_run(averaged, recipe, tmp_path):
    train(averaged, tmp_path, stop=4)
    for other in (replace(averaged, ema_momentum=.5), replace(averaged, decay_end=.1), replace(averaged, ema_from=None)):
        with pytest.raises(ValueError, match="other values of (ema_momentum|decay_end|ema_from);"): train(other, tmp_path)


def test_precision_may_differ_from_run_to_run(recipe, tmp_path):
    "As in a notebook, where one recipe follows another."
    for precision in ("bf16", "no"):
        train(replace(recipe, precision=precision, iterations=1), tmp_path / precision)
        assert torch.load(tmp_path / precision / "checkpoint.pt", weights_only=True)["recipe"]["precision"] == precision


@pytest.mark.parametrize("name, status, times", [("SIGTERM", 143, 1), ("SIGHUP", 129, 2)])
def test_a_scheduler_or_a_closed_terminal_may_stop_a_run(recipe, expected, tmp_path, monkeypatch, name, status, times):
    "Nothing is lost, and the error has the exit status of the command. SIGHUP comes from the shell and from the terminal."
    before = signal.signal(getattr(signal, name), signal.SIG_DFL)
    original, calls = Segmentor.loss, []
    def with_signal(*args):
        calls.append(1)
        for _ in range(times if len(calls) == 3 else 0): os.kill(os.getpid(), getattr(signal, name))
        return original(*args)
    with monkeypatch.context() as patch, pytest.raises(Terminated, match="Stopped after 3 of 6") as stop:
        patch.setattr(Segmentor, "loss", with_signal)
        train(recipe, tmp_path)
    signal.signal(getattr(signal, name), before)
    assert stop.value.status == status and saved_at(tmp_path) == 3
    train(recipe, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))


def saved_at(folder): return torch.load(folder / "resume.pt", weights_only=True)["iteration"]


def iterations(folder): return [line.partition(",")[0] for line in (folder / "log.csv").read_text().splitlines()[1:]]


def assert_same(a, b): assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_a_frame_that_cannot_be_read(recipe, expected, tmp_path, monkeypatch, workers=2):
    "Earlier results are kept; the message is one line, whichever process read the frame."
    original = Stream.__getitem__
    def faulty(self, p):
        if p == 7: raise OSError("b.png cannot be read")
        return original(self, p)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="^b.png cannot be read$"):
        patch.setattr(Stream, "__getitem__", faulty)
        train(replace(recipe, workers=workers), tmp_path)
    assert saved_at(tmp_path) == 3 and iterations(tmp_path) == ["0", "1", "2"]
    train(recipe, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))
    assert iterations(tmp_path) == list("012345")


def test_a_worker_that_is_killed(recipe, expected, tmp_path, monkeypatch):
    "However early it dies, the run ends between two steps and resumes from there."
    original = Stream.__getitem__
    def killed(self, p):
        if p == 7: os.kill(os.getpid(), signal.SIGKILL)
        return original(self, p)
    with monkeypatch.context() as patch, pytest.raises(OSError, match=r"^A process that loads images was killed.*run the command again"):
        patch.setattr(Stream, "__getitem__", killed)
        train(replace(recipe, workers=1), tmp_path)
    assert saved_at(tmp_path) in (2, 3), "the last batch that it made may have died with it"
    train(recipe, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))


def test_a_validation_that_fails(recipe, expected, tmp_path, monkeypatch):
    fog = "toyscapes:domain=fog,split=val,n=1"
    watched = replace(recipe, validate=fog, eval_every=4)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no such frame"):
        patch.setattr(Run, "validate", lambda run: (_ for _ in ()).throw(OSError("no such frame")))
        train(watched, tmp_path)
    assert saved_at(tmp_path) == 4 and iterations(tmp_path) == list("0123")
    train(watched, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))


def test_a_loss_that_is_not_finite(recipe, tmp_path, monkeypatch):
    "The message names step, frames and rate; the state from before stays."
    original, calls = Segmentor.loss, []
    def broken(*args):
        calls.append(1)
        return original(*args) * (float("nan") if len(calls) == 4 else 1)
    monkeypatch.setattr(Segmentor, "loss", broken)
    with pytest.raises(FloatingPointError) as error: train(replace(recipe, save_every=2), tmp_path)
    frames = [Stream(training_data(recipe), 99, recipe.seed)[p]["name"] for p in (6, 7)]
    assert str(error.value) == f"The loss of iteration 3 is nan (lr 0.000438, frames {', '.join(frames)}). Take a lower lr, or a longer warmup."
    assert saved_at(tmp_path) == 2


def test_frames_without_labels(recipe, tmp_path, monkeypatch, capsys):
    "They do not change the weights, and a one-line note is printed."
    original = Stream.__getitem__
    def unlabelled(self, p):
        item = original(self, p)
        if p in (2, 3, 6, 7): item["label"].fill_(255)
        return item
    monkeypatch.setattr(Stream, "__getitem__", unlabelled)
    train(recipe, tmp_path)
    losses = [float(line.split(",")[1]) for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert [loss == 0 for loss in losses] == [False, True, False, True, False, False]
    assert capsys.readouterr().err.count("Nothing is labelled in ") == 1


def test_damaged_files_are_set_aside(recipe, expected, tmp_path, capsys, content=b"PK\3\4 torn"):
    train(recipe, tmp_path, stop=4)
    for name in ("resume.pt", "checkpoint.pt"): (tmp_path / name).write_bytes(content)
    with (tmp_path / "log.csv").open("ab") as log: log.write(b"\0\xff,,\n5,")
    train(recipe, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))
    assert iterations(tmp_path) == list("012345") and not (tmp_path / "resume.pt").exists()
    for name in ("resume.pt", "checkpoint.pt"): assert (tmp_path / f"{name}.damaged").read_bytes() == content
    said = capsys.readouterr().err
    assert all(f"{name} is damaged" in said for name in ("resume.pt", "checkpoint.pt")) and "log.csv: 1 damaged lines" in said


def test_a_state_of_numbers_that_are_not_finite_is_set_aside(recipe, expected, tmp_path, capsys):
    train(recipe, tmp_path, stop=4)
    state = torch.load(tmp_path / "resume.pt")
    next(iter(state["head"].values())).fill_(float("nan"))
    torch.save(state, tmp_path / "resume.pt")
    train(recipe, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))
    said = capsys.readouterr().err
    assert "resume.pt is damaged" in said and "not finite" in said and (tmp_path / "resume.pt.damaged").exists()


def test_a_damaged_checkpoint_is_made_from_the_state_there_is(recipe, expected, tmp_path, monkeypatch):
    train(recipe, tmp_path, stop=4)
    (tmp_path / "checkpoint.pt").write_bytes(b"torn")
    calls, original = [], Segmentor.loss
    monkeypatch.setattr(Segmentor, "loss", lambda *args: calls.append(1) or original(*args))
    train(recipe, tmp_path)
    assert len(calls) == 2
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))


def test_a_row_of_the_log_that_a_second_signal_interrupts(recipe, expected, tmp_path, monkeypatch):
    stopped, original = [], Log.write
    def interrupted(log, iteration, **values):
        if iteration == 1 and not stopped:
            stopped.append(iteration)
            raise KeyboardInterrupt
        original(log, iteration, **values)
    monkeypatch.setattr(Log, "write", interrupted)
    with pytest.raises(KeyboardInterrupt): train(recipe, tmp_path)
    train(recipe, tmp_path)
    assert list(read_log(tmp_path).iteration) == list(range(recipe.iterations))
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))


def test_what_is_only_evaluated_may_change(recipe, tmp_path, capsys):
    fog = "toyscapes:domain=fog,split=test,n=1"
    with pytest.raises(ValueError, match="Did you mean 'fog'"): train(replace(recipe, targets=(fog, fog.replace("fog", "fgo"))), tmp_path)
    small = replace(recipe, head="mask2former:width=32,points=16", targets=(fog,), eval_size=(8, 8))
    with pytest.raises(ValueError, match="more than 1 value per channel"): train(small, tmp_path)
    assert not (tmp_path / "log.csv").exists(), "nothing was trained"
    train(replace(recipe, targets=(fog,)), tmp_path)
    train(replace(recipe, targets=(fog.replace("fog", "snow"),), eval_size=(32, 48), workers=1, name="other"), tmp_path)
    assert "nothing to train" in capsys.readouterr().out
    with pytest.raises(ValueError, match="other values of lr;"): train(replace(recipe, lr=1.), tmp_path)


RUN = """
import sys
from causal_tune.training.recipe import get_recipe
from causal_tune.training.loop import Run, train
save = Run.save
def said(run):
    save(run)
    print(run.done, flush=True)
Run.save = said
train(get_recipe("demo", weights=sys.argv[1], crop=(32, 48), batch_size=2, precision="no", iterations=100_000, workers=2, save_every=5,
                 train="toyscapes:domain=clear,split=train,n=4", targets=()), "run")
"""


@pytest.fixture
def running(weights, tmp_path):
    "A long run in a process of its own, which has saved its state."
    env = ENV | dict(PYTHONPATH=os.pathsep.join(sys.path), TQDM_DISABLE="1")
    process = subprocess.Popen([sys.executable, "-c", RUN, str(weights)], cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdout.readline() == "5\n", process.stderr.read()
    yield process
    process.kill()
    process.communicate()


def children(pid): return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed by Linux")
def test_killed_at_any_time_and_taken_up_again(running, recipe, tmp_path):
    "Its folder is its own while it lives; its workers end with it; no line of the log before the state is missing, twice."
    with pytest.raises(OSError, match=f"run is in use by process {running.pid} since"): train(recipe, tmp_path / "run")
    workers = children(running.pid)
    assert len(workers) == 2 and all(map(files.is_process_running, workers))
    running.kill()
    running.wait()
    limit = time.time() + 20
    while any(map(files.is_process_running, workers)) and time.time() < limit: time.sleep(.1)
    assert not any(map(files.is_process_running, workers))
    for _ in range(2):
        at = saved_at(tmp_path / "run")
        assert iterations(tmp_path / "run")[:at] == [str(i) for i in range(at)]
        Log(tmp_path / "run", at)  # as a run that is killed before its first step
    assert iterations(tmp_path / "run") == [str(i) for i in range(at)]
    with files.folder_lock(tmp_path / "run"): pass


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are listed by Linux")
def test_a_signal_to_all_of_its_processes(running, tmp_path):
    "As schedulers send it: the workers go on until the run has answered."
    for number in (signal.SIGHUP, signal.SIGTERM): # workers ignore SIGHUP; the run answers SIGTERM, or the SIGHUP before it
        for pid in [*children(running.pid), running.pid]: os.kill(pid, number)
    _, errors = running.communicate(timeout=60)
    done = saved_at(tmp_path / "run")
    assert f"Terminated: Stopped after {done} of 100000 iterations" in errors and "worker" not in errors
    assert len(iterations(tmp_path / "run")) == done


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk(recipe, expected, tmp_path, monkeypatch):
    "The message names the file and the space it needs; with free space, the run continues."
    saved = []
    def full(state, path):
        saved.append(path)
        original(state, path if len(saved) == 1 else "/dev/full")
    original = torch.save
    with monkeypatch.context() as patch, pytest.raises(OSError) as error:
        patch.setattr(torch, "save", full)
        train(replace(recipe, save_every=2), tmp_path)
    size = (tmp_path / "resume.pt").stat().st_size / 1e6
    assert f"resume.pt could not be written because the disk is full: it needs more than {size:.1f} MB" in str(error.value)
    assert saved_at(tmp_path) == 2 and not list(tmp_path.glob("*~*"))
    train(recipe, tmp_path)
    assert_same(expected, trained(tmp_path / "checkpoint.pt"))
    assert iterations(tmp_path) == list("012345")
