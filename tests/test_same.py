"""The same recipe gives the same weights, to the last bit: independent of workers, interruptions, validation and snapshots.

Not every combination is run. Each adapter meets one of the heads in turn: once without a break and without workers, once stopped after two of
four steps and resumed with two workers. If one of the two mattered, the pair would differ; that both matter and cancel out in the last bit is
not to be expected, and each head has them one by one with `rein`.
"""
from dataclasses import replace
import pytest
import torch
from conftest import trained
from causal_tune.adapters.base import list_adapters
from causal_tune.models.heads import list_heads
from causal_tune.training.recipe import get_recipe
from causal_tune.training.loop import train

SMALL = dict(linear="linear", dpt="dpt:width=8",
             mask2former="mask2former:width=32,num_queries=4,encoder_layers=1,decoder_layers=1,num_heads=4,points=16,decoder_hidden=32",
             pmt="pmt:num_queries=4,decoder_layers=2,points=16")
HEAD_SPECS = [SMALL.get(name, name) for name in list_heads()]
ADAPTERS = [dict(soma="soma:first_layer=3").get(name, name) for name in list_adapters()]
DRAWING = SMALL["mask2former"]
OTHERS = [spec for spec in HEAD_SPECS if spec != DRAWING]
PAIRS = [(adapter, DRAWING if i % 2 else OTHERS[i // 2 % len(OTHERS)]) for i, adapter in enumerate(ADAPTERS)]
heads = pytest.mark.parametrize("head", HEAD_SPECS, ids=lambda spec: spec.partition(":")[0])


@pytest.fixture(scope="module")
def recipe(weights):
    "Four steps of two small images."
    return get_recipe("demo", weights=str(weights), crop=(32, 48), batch_size=2, precision="no", iterations=4, lr=1e-3,
                      train="toyscapes:domain=clear,split=train,n=4", targets=())


def whole(recipe, folder):
    train(recipe, folder)
    return trained(folder / "checkpoint.pt")


def in_parts(recipe, folder, first=None):
    "Stopped after two steps and resumed."
    train(first or recipe, folder, stop=2)
    return whole(recipe, folder)


def assert_same(a, b):
    differ = [name for name in a if not torch.equal(a[name], b[name])]
    assert set(a) == set(b) and not differ, f"{len(differ)} of {len(a)} tensors differ, such as {differ[:3]}"


@pytest.mark.parametrize("adapter, head", PAIRS, ids=lambda spec: spec.partition(":")[0])
def test_every_adapter_and_head(recipe, tmp_path, adapter, head):
    one = replace(recipe, adapter=adapter, head=head)
    assert_same(whole(one, tmp_path / "whole"), in_parts(replace(one, workers=2), tmp_path / "parts"))


@heads
def test_one_by_one(recipe, tmp_path, head):
    one = replace(recipe, adapter="rein", head=head)
    expected = whole(one, tmp_path / "whole")
    assert_same(expected, in_parts(one, tmp_path / "parts"))
    assert_same(expected, whole(replace(one, workers=2), tmp_path / "workers"))
    assert_same(expected, in_parts(one, tmp_path / "both", first=replace(one, workers=1)))


@pytest.mark.parametrize("change", [dict(precision="bf16"), dict(accumulate=2), dict(style="spurious")], ids=str)
def test_other_settings(recipe, tmp_path, change):
    one = replace(recipe, adapter="causal_tune", head=DRAWING, **change)
    assert_same(whole(one, tmp_path / "whole"), in_parts(replace(one, workers=2), tmp_path / "parts"))


def test_validation_changes_nothing(recipe, tmp_path, head=DRAWING):
    "Neither do the targets, nor the interval of saved states."
    one = replace(recipe, adapter="rein", head=head)
    fog = "toyscapes:domain=fog,split=val,n=2"
    watched = replace(one, validate=fog, eval_every=1, save_every=1, targets=(fog,), eval_size=(32, 48))
    assert_same(whole(one, tmp_path / "plain"), whole(watched, tmp_path / "watched"))


def test_another_seed_is_another_run(recipe, tmp_path):
    "Otherwise the tests above would pass for a training that does nothing."
    one = whole(replace(recipe, adapter="rein"), tmp_path / "one")
    two = whole(replace(recipe, adapter="rein", seed=1), tmp_path / "two")
    assert not torch.equal(one["adapter.learnable_tokens_a"], two["adapter.learnable_tokens_a"])
