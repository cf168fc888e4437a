"""Two processes that share a run equal one process with twice the batch: the same images, numbers, losses, gradients, weights, scores.

They are started by torchrun, as a user starts them. This file is also what it starts, so that both sides do the same.
"""
import csv, os, signal, subprocess, sys, time
from dataclasses import replace
from pathlib import Path
import pytest
import torch
from conftest import ENV, ROOT, trained
from causal_tune.training import build, loop as training
from causal_tune.adapters.base import list_adapters
from causal_tune.cli import main
from causal_tune.data.datasets import load_dataset
from causal_tune.training.evaluation import evaluate
from causal_tune.training.recipe import Recipe, nonempty_fields
from causal_tune.models.segmentor import Segmentor, create_segmentor
from causal_tune.training.checkpoint import load_checkpoint
from causal_tune.training.loop import train
from causal_tune.training.stream import Stream

M2F = "mask2former:width=32,points=64,encoder_layers=1,decoder_layers=2,num_queries=12"
CASES = {"norms": dict(head="dpt:width=16"), "draws": dict(head=M2F, batch_size=1, iterations=2),
         "accumulated": dict(head="linear", accumulate=2, batch_size=1)}


def recipes(weights, processes=1):
    "What one process does; or each of several, with its share of the batch."
    small = Recipe("small", weights=str(weights), train="toyscapes:domain=clear,split=train,n=8", crop=(32, 48), iterations=3,
                   adapter="causal_tune", num_tokens=8, lr=1e-4, batch_size=2, validate="toyscapes:domain=clear,split=val,n=11",
                   eval_every=2, eval_size=(32, 48), targets=("toyscapes:domain=fog,split=test,n=9",))
    made = {name: replace(small, **fields) for name, fields in CASES.items()} | dict(long=replace(small, head="linear", iterations=6, save_every=2))
    return {name: replace(r, batch_size=2 * r.batch_size // processes) for name, r in made.items()}


def partly_labelled(stream, p, original=Stream.__getitem__):
    "Some frames have fewer labelled pixels than others, some none: then the mean of two means is not the overall mean."
    item = original(stream, p)
    item["label"][:12 * (p % 4)] = 255
    return item


def gradients(recipe, folder):
    "Those of each step, by the names of the parameters."
    seen, update, loss = [], torch.optim.AdamW.step, Segmentor.loss
    names = {}
    def noted(optimizer, *args):
        seen.append({names[p]: p.grad.clone() for group in optimizer.param_groups for p in group["params"]})
        return update(optimizer, *args)
    def named(segmentor, *args):
        names.update((p, name) for name, p in segmentor.named_parameters())
        return loss(segmentor, *args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stream, "__getitem__", partly_labelled)
        patch.setattr(torch.optim.AdamW, "step", noted)
        patch.setattr(Segmentor, "loss", named)
        for module in (training, build) if recipe.accumulate > 1 else ():
            patch.setattr(module, "loss_check_interval", lambda device: 2)  # as on a device
        train(recipe, folder)
    return seen


def scores(folder):
    "Confusion matrices of eleven images, two at a time: neither divides by the number of processes."
    segmentor, recipe, _ = load_checkpoint(folder / "checkpoint.pt")
    data = load_dataset("toyscapes:domain=fog,split=test,n=11", label_size="original")
    return evaluate(segmentor, data, recipe.eval_size, batch_size=2, together=True)


def words(recipe, folder):
    "A recipe as a command line."
    said = {name: value if isinstance(value, list) else [value] for name, value in nonempty_fields(recipe).items()}
    return ["train", "demo", *(str(word) for name, values in said.items() for word in (f"--{name}", *values)), "--out", str(folder)]


def killed_within(recipe, folder):
    "The second process dies in the fourth step; says when."
    loss, calls = Segmentor.loss, []
    def deadly(*args):
        calls.append(1)
        if len(calls) == 4 and os.environ["RANK"] == "1":
            Path(folder, "died").write_text(str(time.time()))
            os.kill(os.getpid(), signal.SIGKILL)
        return loss(*args)
    Segmentor.loss = deadly
    return main(words(recipe, folder))


def leaves_no_thread(command):
    "A command line, then 1 if threads that exchange tensors are left: Python would end under them, and now and then abort."
    status = main(command)
    names = [task.joinpath("comm").read_text() for task in Path("/proc/self/task").glob("*")]
    return status or any("gloo" in name for name in names)


if __name__ == "__main__":
    if sys.argv[1] == "train": sys.exit(leaves_no_thread(sys.argv[1:]))
    weights, folder = sys.argv[1:]
    ours = recipes(weights, 2)
    for name in CASES:
        seen = gradients(ours[name], f"{folder}/{name}")
        torch.save(seen, f"{folder}/{name}/gradients{os.environ['RANK']}.pt")
    torch.save(torch.from_numpy(scores(Path(folder, "norms"))), f"{folder}/scores{os.environ['RANK']}.pt")
    sys.exit(killed_within(ours["long"], f"{folder}/long"))


def torchrun(*words):
    command = [Path(sys.executable).parent / "torchrun", "--standalone", "--nproc_per_node", "2", *words]
    env = ENV | dict(PYTHONPATH=os.pathsep.join([str(ROOT), *sys.path]), TQDM_DISABLE="1")
    if not torch.accelerator.is_available(): del env["ACCELERATE_USE_CPU"]  # who has none need not say so
    return subprocess.run([*map(str, command)], env=env, timeout=300, capture_output=True, text=True)


@pytest.fixture(scope="module")
def two(weights, tmp_path_factory):
    "What two processes left, until one of them was killed; what they said, and how long the other lived on."
    folder = tmp_path_factory.mktemp("two")
    done = torchrun(__file__, weights, folder)
    return folder, done, time.time() - float((folder / "long/died").read_text())


def log(folder): return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader((folder / "log.csv").open())]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_with_twice_the_batch(two, weights, tmp_path, name):
    both = [torch.load(two[0] / name / f"gradients{rank}.pt") for rank in (0, 1)]
    alone = gradients(recipes(weights)[name], tmp_path)
    assert len(alone) == len(both[0]) == recipes(weights)[name].iterations
    for first, second, one in zip(*both, alone):
        assert all(torch.equal(first[k], second[k]) for k in first)
        gaps = {k: ((first[k] - one[k]).abs().max() / one[k].abs().max().clamp(min=1)).item() for k in one}
        assert max(gaps.values()) < 1e-5, max(gaps, key=gaps.get)
    a, b = log(two[0] / name), log(tmp_path)
    assert [row["lr"] for row in a] == [row["lr"] for row in b]
    for x, y in zip(a, b): assert float(x["loss"]) == pytest.approx(float(y["loss"]), rel=1e-5)
    assert a[1]["validation_miou"] and float(a[1]["validation_miou"]) == pytest.approx(float(b[1]["validation_miou"]), abs=1e-3)


def test_a_process_that_dies_ends_the_other(two):
    "Within seconds, with a one-line message; saved files are kept."
    folder, done, seconds = two
    said = [line for line in done.stderr.splitlines() if line.startswith("causal-tune:")]
    assert done.returncode and seconds < 60, seconds  # some, unless the machine is busy
    assert said == ["causal-tune: another process of this run was killed, perhaps as memory ran out; run the command again to resume"]
    assert torch.load(folder / "long/resume.pt", weights_only=True)["iteration"] == 2


def test_killed_and_taken_up_again(two, weights, tmp_path):
    "Started again, the two come to where one process comes without a break, and report once."
    again = torchrun(__file__, *words(recipes(weights, 2)["long"], two[0] / "long"))
    assert again.returncode == 0, again.stderr
    assert [again.stdout.count(said) for said in ("fog  mIoU", "Recipe:", "Checkpoint:")] == [1, 1, 1]
    train(recipes(weights)["long"], tmp_path)
    ours, alone = (trained(folder / "checkpoint.pt") for folder in (two[0] / "long", tmp_path))
    gaps = {k: (ours[k].float() - alone[k].float()).abs().max().item() for k in alone}
    assert max(gaps.values()) < 1e-5, max(gaps, key=gaps.get)
    assert [row["iteration"] for row in log(two[0] / "long")] == list("012345")


def test_every_image_is_evaluated_once(two):
    "And in the same batches, so the scores are the same to the last pixel."
    both = [torch.load(two[0] / f"scores{rank}.pt") for rank in (0, 1)]
    assert len(both[0]) == 11 and torch.equal(*both)
    assert torch.equal(both[0], torch.from_numpy(scores(two[0] / "norms")))


def test_a_run_stays_one_of_as_many_processes(two, weights):
    with pytest.raises(ValueError, match="belongs to a run of 2 processes, and this one has 1: start as many"):
        train(recipes(weights, 2)["norms"], two[0] / "norms")


@pytest.mark.parametrize("adapter", list_adapters())
def test_no_parameter_is_left_without_a_gradient(adapter):
    "Of any adapter with any head: processes wait for the gradients of all that is trained."
    for head in ("linear", "dpt:width=16", M2F):
        spec = f"{adapter}:first_layer=4" if adapter == "soma" else adapter
        segmentor = create_segmentor("toy_vit", spec, head, num_classes=5, pretrained=False).train()
        segmentor.loss(torch.randn(2, 3, 32, 48), torch.randint(0, 5, (2, 32, 48))).backward()
        assert [name for name, p in segmentor.named_parameters() if p.requires_grad and p.grad is None] == [], head
