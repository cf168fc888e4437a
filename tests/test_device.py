"""A training step on a GPU does not wait for numbers, and nothing of it is left on the CPU: shown without a GPU.

Fake tensors have shapes and a device but no values, so that "cuda" needs no GPU. On a build of torch without CUDA some methods of
tensors stop nevertheless, as they select the device in C++; `fake_cuda` replaces these by the operations they consist of.
"""
from contextlib import contextmanager
from unittest import mock
import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
import causal_tune  # noqa: F401  # before timm
import timm
from causal_tune.adapters.base import Adapter, list_adapters
from causal_tune.models import mask2former
from causal_tune.models.acceleration import StepCounter
from causal_tune.models.backbones import create_backbone
from causal_tune.models.heads import list_heads
from causal_tune.models.segmentor import create_segmentor

aten = torch.ops.aten
ADAPTERS = ["none", "rein", "rein:rank=none", "causal_tune", "causal_tune:rank=none", "causal_tune:band=ideal,residual=replace", "causal_tune:band=learnable",
            "causal_tune:variant=released", "set", "set:variant=released", "fada", "lora", "soma:first_layer=1", "full"]
HEADS = {"linear": "linear", "dpt": "dpt:width=16",
         "mask2former": "mask2former:width=32,num_queries=4,encoder_layers=1,decoder_layers=1,num_heads=2,encoder_hidden=32,decoder_hidden=32,points=16",
         "pmt": "pmt:num_queries=4,decoder_layers=1,points=16"}
MADE_ONCE = {"spectra.dct.dct_matrix", "spectra.bands._fixed_gain"}  # for each size, and then kept
READS = {"models.mask2former.present_classes", "models.mask2former.hungarian_match"}  # replaced below by fixed indices


def parts(x, key): # `x[key]` but for its tensors; those tensors by axis
    keys = list(key) if isinstance(key, tuple) else [key]
    if not any(k is ... for k in keys): keys.append(...)
    rest = x.dim() - sum(k is not None and k is not ... for k in keys)
    axis, places = 0, []
    for k in keys:
        if isinstance(k, int): x = aten.select(x, axis, k); continue
        if k is None: x = aten.unsqueeze(x, axis)
        if isinstance(k, slice): x = aten.slice(x, axis, k.start, k.stop, k.step or 1)
        if isinstance(k, Tensor): places += [None] * (axis - len(places)) + [k]
        axis += rest if k is ... else 1
    return x, places


def get(x, key):
    x, places = parts(x, key)
    return aten.index(x, places) if places else aten.alias(x)


def put(x, key, value):
    x, places = parts(x, key)
    if not isinstance(value, Tensor): value = torch.full((), value, dtype=x.dtype, device=x.device)
    if places: aten.index_put_(x, places, value)
    else: aten.copy_(x, value)


def contiguous(x, memory_format=torch.contiguous_format):
    return x if x.is_contiguous(memory_format=memory_format) else aten.clone(x, memory_format=memory_format)


@contextmanager
def fake_cuda():
    methods = dict(__getitem__=get, __setitem__=put, __invert__=lambda x: aten.bitwise_not(x), contiguous=contiguous,
                   copy_=lambda x, y, non_blocking=False: aten.copy_(x, y, non_blocking))
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), mock.patch.multiple(Tensor, **methods): yield


def step(adapter, head):
    "Places where a second step would wait."
    vit = timm.models.VisionTransformer(img_size=32, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=0, dynamic_img_size=True)
    segmentor = create_segmentor(create_backbone(vit, adapter, out_layers=(0, 0, 1, 1), query_dim=256 if head == "pmt" else 32), head=HEADS[head]).train()
    first = dict(present_classes=lambda labels, k: [[0, 1]] * len(labels),
                 hungarian_match=lambda costs, counts: [[(np.arange(n), np.arange(n)) for n in counts]] * len(costs))
    with fake_cuda(), mock.patch.multiple(mask2former, **first):
        segmentor.to_empty(device="cuda")
        images = torch.empty(2, 3, 64, 64, dtype=torch.uint8, device="cuda")
        labels = torch.empty(2, 64, 64, dtype=torch.int64, device="cuda")
        found = []
        for _ in range(2):
            with StepCounter() as counter: loss = segmentor.loss(segmentor.normalise(images), labels)
            assert loss.device.type == "cuda" and not loss.shape
            found.append(set(counter.waits))
        assert found[0] <= MADE_ONCE, found
    return found[1]


@pytest.mark.slow
def test_no_adapter_and_no_head_waits():
    "Each adapter with the head that reads its queries, and each head with and without an adapter."
    assert set(list_heads()) == set(HEADS) and {spec.partition(":")[0] for spec in ADAPTERS} >= set(list_adapters())
    pairs = [(adapter, "mask2former") for adapter in ADAPTERS] + [(adapter, head) for head in HEADS for adapter in ("none", "causal_tune") if head != "mask2former"]
    assert {pair: places for pair in pairs if (places := step(*pair))} == {}


def test_causal_tune_does_not_wait():
    assert not step("causal_tune", "linear")


PLANTED = {"item": lambda x: x * x.sum().item(), "branch": lambda x: x if x.sum() > 0 else -x, "cpu": lambda x: x + x.cpu().mean(),
           "mask": lambda x: x[x > 0].sum() + x, "masked_put": lambda x: put(x, x > 0, 0.), "unique": lambda x: x + x.unique().sum(),
           "sent": lambda x: x * torch.ones(x.shape[-1]).to(x.device)}


@pytest.mark.parametrize("name", PLANTED)
def test_what_waits_is_found(name):
    with fake_cuda(), StepCounter() as counter:
        try: PLANTED[name](torch.empty(1, 4, 8, device="cuda"))
        except RuntimeError: pass  # there is no number to give
    place = dict(mask="get", masked_put="put").get(name, "<lambda>")
    assert counter.waits == {f"{__name__}.{place}": 1}


def test_a_tensor_on_the_cpu_is_found(monkeypatch):
    monkeypatch.setattr(Adapter, "forward", lambda self, tokens, layer, grid: tokens + torch.zeros(tokens.shape[-1]))
    with pytest.raises(RuntimeError, match="cuda.*cpu"): step("none", "linear")


def test_the_two_reads_of_mask2former_are_seen():
    with fake_cuda(), StepCounter() as counter:
        with pytest.raises(RuntimeError): mask2former.present_classes(torch.empty(1, 8, 8, dtype=torch.int64, device="cuda"), 19)
        with pytest.raises(RuntimeError): mask2former.hungarian_match(torch.empty(1, 1, 4, 2, device="cuda"), [2])
    assert set(counter.waits) == READS
