"""Every adapter in small copies of the field's models, and through a training run. (What an adapter promises by itself is
checked in the chapters.)"""
import subprocess, sys
from dataclasses import replace
import pytest, torch
from causal_tune import list_adapters
from causal_tune.backbones import create_backbone, create_model
from causal_tune.recipes import Recipe
from causal_tune.training import build, load_checkpoint, train

VIT = dict(embed_dim=48, depth=2, num_heads=3)
MODELS = {"dinov2_s": VIT | dict(img_size=64), "dinov2_s_reg": VIT | dict(img_size=64), "dinov3_s": VIT | dict(img_size=64),
          "eva02_l": VIT | dict(img_size=64), "siglip2_b": VIT | dict(img_size=64),
          "sam_b": VIT | dict(global_attn_indexes=(1,), window_size=3), "convnext_t": dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))}
ADAPTERS = [a for a in list_adapters() if a != "none"]


def spec(name): return {"soma": "soma:first_layer=0,rank=4", "lora": "lora:rank=4", "full": "full"}.get(name, f"{name}:num_tokens=8,rank=4")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapter_in_a_model(adapter, model):
    torch.manual_seed(0)
    make = lambda name: create_backbone(create_model(model, pretrained=False, **MODELS[model]), name)
    plain, b = make("none"), make(spec(adapter))
    keys = set(plain.model.state_dict())
    assert set(b.model.state_dict()) == keys                       # the model's names are timm's
    x = torch.randn(2, 3, 3 * b.patch_size[0] - 3, 2 * b.patch_size[1])
    features = b(x)
    assert [f.shape for f in features] == [f.shape for f in plain(x)]
    assert torch.allclose(b(x[:1])[-1], features[-1][:1], atol=1e-4)
    sum(f.square().mean() for f in features).backward()
    link = {id(p) for a in getattr(b.adapter, "stages", [b.adapter]) for p in getattr(a, "link_parameters", list)()}
    dead = [n for n, p in b.adapter.named_parameters() if p.requires_grad and p.grad is None and id(p) not in link]
    assert not dead, dead
    with torch.autocast("cpu", torch.bfloat16): assert all(f.isfinite().all() for f in b(x))


@pytest.mark.parametrize("adapter", ["lora", "soma", "full"])
@pytest.mark.parametrize("model", ["dinov2_s", "dinov3_s", "eva02_l", "sam_b", "convnext_t"])
def test_merged_it_computes_the_same(adapter, model):
    torch.manual_seed(0)
    m = create_model(model, pretrained=False, **MODELS[model])
    for p in m.parameters(): p.data += .1 * torch.randn_like(p)   # LayerScale starts near 0, where no block does anything
    plain = create_backbone(create_model(model, pretrained=False, **MODELS[model]), "none")
    plain.model.load_state_dict(m.state_dict())
    b, x = create_backbone(m, spec(adapter)), torch.randn(2, 3, 2 * plain.patch_size[0], 3 * plain.patch_size[1])
    assert all(torch.allclose(y, z, atol=1e-3) for y, z in zip(b(x), plain(x)))       # untrained it changes nothing
    for p in b.adapter.parameters():
        if p.requires_grad: p.data += .02 * torch.randn_like(p)
    tuned = b(x)
    assert not torch.allclose(tuned[-1], plain(x)[-1], atol=1e-3)
    merged = b.merge()(x)
    assert all(torch.allclose(y, z, atol=1e-3, rtol=1e-3) for y, z in zip(merged, tuned))
    assert not any(p.requires_grad for p in b.parameters()) and set(b.model.state_dict()) == set(plain.model.state_dict())


@pytest.mark.parametrize("adapter", ["lora", "soma"])
def test_a_model_without_linear_maps(adapter):
    m = create_model("resnet50", pretrained=False, layers=(1, 1, 2, 1), channels=(4, 8, 12, 16))
    with pytest.raises(ValueError, match="no linear maps"): create_backbone(m, spec(adapter))


def test_token_adapters_cannot_be_merged():
    with pytest.raises(ValueError, match="changes features"): create_backbone("toy_vit", "set").merge()


def test_no_name_is_missing_in_a_fresh_process():
    code = "from causal_tune import list_adapters; print(*list_adapters())"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert names.split() == ["none", "rein", "causal_tune", "set", "fada", "lora", "soma", "full"]


SMALL = Recipe("small", train="toyscapes:domain=clear,n=4", head="dpt:width=8", crop=(40, 48), iterations=3, batch_size=2, lr=1e-2,
               save_every=1)

@pytest.mark.parametrize("adapter, fields", [("lora", dict(rank=4)), ("soma:first_layer=3", dict(rank=4)), ("full", {}),
                                             ("set", dict(num_tokens=8, init="zero")), ("fada", dict(num_tokens=8, init="scale"))])
def test_trained_resumed_and_loaded(tmp_path, adapter, fields):
    recipe, x = replace(SMALL, adapter=adapter, **fields), torch.randn(1, 3, 50, 70)
    start = build(recipe, 19).backbone(x)[-1]
    whole = train(recipe, tmp_path / "whole")
    train(recipe, tmp_path / "halves", stop=2)
    resumed = train(recipe, tmp_path / "halves")
    loaded = load_checkpoint(tmp_path / "whole" / "checkpoint.pt")[0]
    with torch.no_grad():
        assert torch.equal(whole(x), resumed(x)) and torch.equal(whole(x), loaded(x))
        assert not torch.allclose(whole.backbone(x)[-1], start, atol=1e-3)
        if adapter not in ("set", "fada"):
            before = loaded.predict((x[0].permute(1, 2, 0) * 40 + 128).clamp(0, 255).byte().numpy())
            loaded.backbone.merge()
            assert (loaded.predict((x[0].permute(1, 2, 0) * 40 + 128).clamp(0, 255).byte().numpy()) == before).mean() > .999
