"""A step on a device does not wait: its loss is read some steps later, and a non-finite one does not change the weights.

No device is needed: on the CPU, `loss_check_interval` is patched so that losses are read late.
"""
import csv, sys
from collections import Counter
from dataclasses import replace
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from conftest import trained
from causal_tune.models import acceleration
from causal_tune.training import build, loop as training
from causal_tune.training.recipe import get_recipe
from causal_tune.models.segmentor import Segmentor
from causal_tune.training.build import training_data
from causal_tune.training.loop import Run, train
from causal_tune.training.stream import Stream

WAITS = {torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten._unique2, torch.ops.aten.equal, torch.ops.aten.bincount,
         torch.ops.aten.masked_select}  # what gives a number or a size to the program: item, bool, tolist of one, an index by a mask


class Waits(TorchDispatchMode):
    "Counts operations that would wait for a device."
    def __init__(self):
        super().__init__()
        self.found = Counter()
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found[func.overloadpacket in WAITS] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def recipe(weights):
    return get_recipe("demo", weights=str(weights), crop=(32, 48), batch_size=2, precision="no", iterations=7, lr=1e-3, save_every=2,
                      adapter="rein", num_tokens=8, head="dpt:width=8", train="toyscapes:domain=clear,split=train,n=5", targets=())


@pytest.fixture
def late(monkeypatch):
    for module in (training, build): monkeypatch.setattr(module, "loss_check_interval", lambda device: 3)


def losses(folder): return [float(row["loss"]) for row in csv.DictReader((folder / "log.csv").open())]


def waits_of_steps(recipe, folder):
    found, advance = [], Run.advance
    with pytest.MonkeyPatch.context() as patch:
        def counted(run, *args):
            copied.clear()
            with Waits() as waits: advance(run, *args)
            found.append(waits.found[True] + len(copied))
        copied = []
        for name in ("tolist", "numpy", "cpu"):  # which copy without a word where everything is in one memory
            original = getattr(torch.Tensor, name)
            patch.setattr(torch.Tensor, name, lambda x, original=original: copied.append(1) or original(x))
        patch.setattr(Run, "advance", counted)
        train(replace(recipe, iterations=6, save_every=100), folder)
    return found


@pytest.mark.parametrize("head", ["dpt:width=8", "linear"])
def test_no_step_waits(recipe, late, tmp_path, head):
    found = waits_of_steps(replace(recipe, head=head, adapter="causal_tune", accumulate=2), tmp_path)
    assert [bool(n) for n in found] == [False, False, True] * 2, found


def test_on_a_processor_each_loss_is_looked_at(recipe, tmp_path):
    assert all(waits_of_steps(recipe, tmp_path))


def test_late_is_the_same_run(recipe, late, tmp_path, monkeypatch):
    "Exact after an interruption; and up to rounding equal to a CPU run, whose AdamW sums in another order."
    train(recipe, tmp_path / "whole")
    for stop in (4, None): train(recipe, tmp_path / "parts", stop=stop)
    whole, parts = (trained(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert all(torch.equal(whole[k], parts[k]) for k in whole) and losses(tmp_path / "whole") == losses(tmp_path / "parts")
    monkeypatch.undo()
    train(recipe, tmp_path / "at once")
    assert losses(tmp_path / "at once") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4) and len(losses(tmp_path / "whole")) == 7
    assert [p.name for p in sorted((tmp_path / "whole").glob("*.pt"))] == ["checkpoint.pt"]


@pytest.mark.parametrize("save_every, kept, made", [(2, 2, 4), (100, None, 6)])
def test_a_bad_loss_does_no_harm(recipe, late, tmp_path, monkeypatch, save_every, kept, made):
    "Found before a state is kept or at the next look; the frames are named, the log ends before it, and the run goes on from what was kept."
    recipe = replace(recipe, save_every=save_every)
    loss, calls, weights = Segmentor.loss, [], []
    def bad(segmentor, *args):
        calls.append(1)
        weights.append(segmentor.adapter.learnable_tokens_a.detach().clone())
        return loss(segmentor, *args) * (float("nan") if len(calls) == 4 else 1)
    monkeypatch.setattr(Segmentor, "loss", bad)
    shown = Stream(training_data(recipe), 14, recipe.seed)
    frames = ", ".join(shown[p]["name"] for p in (6, 7))
    with pytest.raises(FloatingPointError, match=rf"The loss of iteration 3 is nan \(lr 0.000536, frames {frames}\). Take a lower lr"):
        train(recipe, tmp_path)
    assert len(calls) == made and all(torch.equal(w, weights[3]) for w in weights[4:]) and not torch.equal(weights[2], weights[3])
    resume = tmp_path / "resume.pt"
    assert (torch.load(resume, weights_only=True)["iteration"] if resume.exists() else None) == kept
    assert len(losses(tmp_path)) == 3 and not (tmp_path / "checkpoint.pt").exists()
    monkeypatch.setattr(Segmentor, "loss", loss)
    train(recipe, tmp_path)
    train(recipe, tmp_path / "whole")
    ours, whole = trained(tmp_path / "checkpoint.pt"), trained(tmp_path / "whole" / "checkpoint.pt")
    assert all(torch.equal(ours[k], whole[k]) for k in whole)


def test_frames_are_kept_decoded(recipe, tmp_path):
    "By recipe; the weights are the same, frames are decoded once, and a checkpoint says nothing of a folder of this machine."
    from PIL import Image
    from causal_tune.data.datasets import toyscapes_pair
    from causal_tune.training.checkpoint import load_checkpoint
    for i in range(3):
        for kind, array in zip(("images", "labels"), toyscapes_pair(i, "clear", (48, 64))):
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(array).save(tmp_path / kind / f"{i}.png")
    (tmp_path / "classes.txt").write_text("\n".join(f"{i}: class {i}" for i in range(19)))
    spec = f"folder:images={tmp_path}/images,labels={tmp_path}/labels,classes={tmp_path}/classes.txt"
    recipe = replace(recipe, train=spec, targets=(f"{spec},size=24x32,domain=small",), iterations=2, eval_size=())
    kept = tmp_path / "kept"
    train(recipe, tmp_path / "plain")
    train(replace(recipe, cache=str(kept)), tmp_path / "cached")
    files = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert len(files) == 3 + 1  # and the target's first frame, which is looked at before the first step
    plain, cached = (trained(tmp_path / name / "checkpoint.pt") for name in ("plain", "cached"))
    assert all(torch.equal(plain[k], cached[k]) for k in plain)
    train(replace(recipe, cache=str(kept)), tmp_path / "plain")  # what is kept decides nothing: it is finished
    train(replace(recipe, cache=str(kept)), tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == files
    assert load_checkpoint(tmp_path / "cached/checkpoint.pt")[1].cache == ""


def test_compiled_is_the_same_run(recipe, tmp_path, monkeypatch):
    "Up to rounding, and with the same names in its checkpoint; `compile` does not define another run."
    monkeypatch.setattr(acceleration, "COMPILE_BACKEND", "aot_eager")
    recipe = replace(recipe, iterations=2, checkpointing=True)
    for name, compiled in (("plain", False), ("compiled", True)): train(replace(recipe, compile=compiled), tmp_path / name)
    plain, compiled = (trained(tmp_path / name / "checkpoint.pt") for name in ("plain", "compiled"))
    assert list(plain) == list(compiled) and all(torch.allclose(plain[k], compiled[k], atol=1e-6) for k in plain)
    monkeypatch.setattr(acceleration, "COMPILE_BACKEND", "none")
    train(replace(recipe, compile=True), tmp_path / "plain")  # it is finished, so nothing is compiled
    with pytest.raises(ValueError, match="compile=on cannot run here"): train(replace(recipe, compile=True), tmp_path / "new")


def test_processes_are_asked_for_objects_once(recipe, tmp_path, monkeypatch):
    "Before the first step and after the last, and not at each: that would wait for all of them."
    asked, ask = [], training.gather_from_all
    for module in list(sys.modules.values()):
        if getattr(module, "gather_from_all", None) is ask: monkeypatch.setattr(module, "gather_from_all", lambda find: asked.append(1) or ask(find))
    train(replace(recipe, iterations=2), tmp_path / "two")
    few = len(asked)
    train(replace(recipe, iterations=5), tmp_path / "five")
    assert len(asked) == 2 * few  # three more steps ask nobody
