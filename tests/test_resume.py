"""An interruption leaves no half-made step behind, whenever it comes."""
import os, signal
from dataclasses import replace
import pytest
import torch
from conftest import trained
from causal_tune.recipes import get_recipe
from causal_tune.segmentor import Segmentor
from causal_tune.training import train


@pytest.fixture(scope="module")
def recipe(weights):
    "Six steps; the head has BatchNorm, whose statistics change in the forward pass."
    return get_recipe("demo", adapter="causal_tune", init="zero", weights=str(weights), crop=(32, 48), batch_size=2,
                      precision="no", iterations=6, train="toyscapes:domain=clear,split=train,n=4")


@pytest.fixture(scope="module")
def expected(recipe, tmp_path_factory):
    "What the uninterrupted run gives."
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


def test_precision_may_differ_from_run_to_run(recipe, tmp_path):
    "As in a notebook, where one recipe follows another."
    for precision in ("bf16", "no"):
        train(replace(recipe, precision=precision, iterations=1), tmp_path / precision)
        assert torch.load(tmp_path / precision / "checkpoint.pt", weights_only=True)["recipe"]["precision"] == precision
