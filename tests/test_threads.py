"""One model in several threads, run in every way: state of an image or an intervention belongs to its own call."""
from concurrent.futures import ThreadPoolExecutor
import pytest
import torch
from causal_tune.models import acceleration
from causal_tune.models.acceleration import compile_blocks
from causal_tune.models.backbones import create_backbone
from causal_tune.models.segmentor import create_segmentor
from timm.models.vision_transformer import VisionTransformer

SIZES = (40, 64), (24, 96), (33, 17)


def shift(f, layer): return f + 1


def run(b, i):
    "Features of an image of its own size, with an intervention in every other one; and the gradient, after the context has ended."
    x = torch.randn(1, 3, *SIZES[i % 3], generator=torch.Generator().manual_seed(i))
    if i % 2: features = b(x)
    else:
        with b.intervene(shift, layers=[2]): features = b(x)
    if not torch.is_grad_enabled(): return [f.detach() for f in features]
    return [f.detach() for f in features] + list(torch.autograd.grad(features[-1].square().sum(), [b.adapter.mlp_delta_f.weight]))


@pytest.mark.parametrize("how", ["plain", "checkpointing", "blocks compiled", "compiled and checkpointing"])
def test_threads_do_not_meet(how, monkeypatch):
    torch.manual_seed(0)
    b = create_backbone("toy_vit", "rein", weights=False, num_tokens=6, rank=2, out_layers=(2, 4)).train()
    alone = [run(b, i) for i in range(12)]
    if "compiled" in how:
        monkeypatch.setattr(acceleration, "COMPILE_BACKEND", "eager")
        compile_blocks(b.model)
    b.set_grad_checkpointing("checkpointing" in how)
    for i in range(6): run(b, i)  # what there is to compile is compiled
    with ThreadPoolExecutor(6) as pool: together = list(pool.map(lambda i: run(b, i), range(12)))
    for one, other in zip(alone, together): assert all(torch.allclose(f, g, atol=1e-6) for f, g in zip(one, other, strict=True))


def test_compiled_whole_and_exported():
    "torch.compile around the backbone and torch.export see each call's own grid and interventions."
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=0, global_pool="", dynamic_img_size=True)
    b = create_backbone(vit, "rein", num_tokens=6, rank=2, out_layers=(1, 2)).eval()
    compiled = torch.compile(b, backend="eager")
    with torch.no_grad():
        for i in (1, 0):
            x = torch.randn(1, 3, *SIZES[i % 3])
            assert all(torch.allclose(f, g, atol=1e-6) for f, g in zip(compiled(x), b(x)))
            with b.intervene(shift): assert all(torch.allclose(f, g, atol=1e-6) for f, g in zip(compiled(x), b(x)))
        x = torch.randn(1, 3, 40, 64)
        with b.intervene(shift, layers=[2]): program = torch.export.export(b, (x,), strict=False).module()
        plain = b(x)
        with b.intervene(shift, layers=[2]): assert all(torch.allclose(f, g, atol=1e-6) for f, g in zip(program(x), b(x)))
        assert not torch.allclose(program(x)[-1], plain[-1], atol=1e-3)


def test_no_mode_is_changed_by_a_prediction_that_raises():
    s = create_segmentor("toy_vit", "rein", "linear", num_classes=3, weights=False).train()
    modes = {name: m.training for name, m in s.named_modules()}
    with torch.no_grad(): s.head.classify.bias.fill_(float("inf"))
    with pytest.raises(FloatingPointError): s.predict(torch.zeros(3, 16, 24, dtype=torch.uint8))
    assert {name: m.training for name, m in s.named_modules()} == modes and modes["head"]
