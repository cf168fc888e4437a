"""Every adapter in small copies of the field's models, and through a training run. (What an adapter promises by itself is
checked in the chapters.)"""
import subprocess, sys
from dataclasses import replace
from functools import partial
import pytest, torch
from causal_tune import list_adapters
from causal_tune.backbones import check_backbone_contract, create_backbone, create_model
from causal_tune.recipes import Recipe
from causal_tune.training import build, load_checkpoint, train

VIT = dict(embed_dim=48, depth=2, num_heads=3)
MODELS = {"dinov2_s": VIT | dict(img_size=64), "dinov2_s_reg": VIT | dict(img_size=64), "dinov3_s": VIT | dict(img_size=64),
          "eva02_l": VIT | dict(img_size=64), "siglip2_b": VIT | dict(img_size=64),
          "sam_b": VIT | dict(global_attn_indexes=(1,), window_size=3), "convnext_t": dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32))}
ADAPTERS = [a for a in list_adapters() if a != "none"]


WEIGHTS = {"soma": "soma:first_layer=0,rank=4", "lora": "lora:rank=4", "full": "full"}  # adapters of weights start as the identity


def spec(name): return WEIGHTS.get(name, f"{name}:num_tokens=8,rank=4")


def small_model(name): # the same weights at each call; away from the start, where LayerScale hides what a block does
    torch.manual_seed(0)
    model = create_model(name, pretrained=False, **MODELS[name])
    for p in model.parameters(): p.data += .05 * torch.randn_like(p)
    return model


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapter_in_a_model(adapter, model):
    b = check_backbone_contract(partial(small_model, model), spec(adapter), identity=adapter in WEIGHTS)
    plain = create_backbone(small_model(model))
    names = set(plain.model.state_dict())
    assert set(b.model.state_dict()) == names                      # the model's names are timm's
    x = torch.randn(2, 3, 3 * b.patch_size[0] - 3, 2 * b.patch_size[1])
    assert [f.shape for f in b(x)] == [f.shape for f in plain(x)]  # padded alike
    if adapter in WEIGHTS:                                         # the contract has seen that merging changes nothing
        b.merge()
        assert set(b.model.state_dict()) == names and not any(p.requires_grad for p in b.parameters())


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
