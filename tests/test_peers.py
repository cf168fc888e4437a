"""Every adapter in small copies of the field's models, and through a training run. (What an adapter promises by itself is
checked in the chapters.)"""
import cmath, copy, math, subprocess, sys
from dataclasses import replace
from functools import partial
import pytest, torch
from causal_tune import create_adapter, list_adapters
from causal_tune.models.backbones import create_backbone
from causal_tune.models.pretrained import create_model
from causal_tune.training.recipe import Recipe
from causal_tune.training.build import build_segmentor
from causal_tune.training.checkpoint import load_checkpoint
from causal_tune.training.loop import train

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


def check_backbone_contract(make_model, # () -> a small timm model, with the same weights at each call
                            adapter: str, # one of `list_adapters()`, options may follow
                            identity: bool = True, # does it start as the identity?
): # the backbone it was checked on
    "Check an adapter in a model against the contract. Raises AssertionError that names the broken promise."
    make = lambda: create_backbone(make_model(), adapter)
    b = make().train()
    plain = create_backbone(make_model())
    for h, w in [(4, 4), (3, 5), (6, 2)]:
        x = torch.randn(2, 3, h * b.patch_size[0], w * b.patch_size[1])
        _check_features(b, plain, x, identity)
    _check_learning(b, x)
    _check_copies(b, make(), x)
    with torch.autocast("cpu", dtype=torch.bfloat16): assert all(f.isfinite().all() for f in b(x)), "bf16 fails"
    return b

def _near(these, those): return all(torch.allclose(f, g, atol=1e-4) for f, g in zip(these, those, strict=True))

def _check_features(b, plain, x, identity):
    y = b(x)
    assert [f.shape for f in y] == [f.shape for f in plain(x)], "other shapes than the model's"
    assert _near(b(x[:1]), [f[:1] for f in y]), "an image's features depend on the others of its batch"
    assert not identity or _near(y, plain(x)), "it does not start as the identity"

def _check_copies(b, other, x): # saved and loaded, copied, merged
    y = b(x)
    other.adapter.load_state_dict(b.adapter.state_dict())
    assert _near(other(x), y), "saved and loaded it computes something else"
    twin = copy.deepcopy(b)
    for p in twin.parameters(): p.data.zero_()
    assert _near(b(x), y) and not _near(twin(x), y), "a copy is not independent"
    if b.adapter.spans_all_stages: assert _near(other.merge()(x), y), "merged it computes something else"

def _check_learning(b, x):
    trained = {n: p for n, p in b.named_parameters() if p.requires_grad}
    for p in trained.values(): p.data += .02 * torch.randn_like(p)  # a zero map passes no gradient on
    if trained: sum(f.square().mean() for f in b(x)).backward()
    link = {id(p) for p in b.adapter.query_parameters()}
    dead = [n for n, p in trained.items() if id(p) not in link and (p.grad is None or not p.grad.isfinite().all())]
    assert not dead, f"no gradient reaches {dead}"
    frozen = [n for n, p in b.named_parameters() if not p.requires_grad and p.grad is not None]
    assert not frozen, f"a gradient reaches {frozen}, which is frozen"


@pytest.mark.parametrize("model", MODELS)
def test_every_adapter_in_a_model(model):
    for adapter in ADAPTERS:
        b = check_backbone_contract(partial(small_model, model), spec(adapter), identity=adapter in WEIGHTS)
        plain = create_backbone(small_model(model))
        names = set(plain.model.state_dict())
        assert set(b.model.state_dict()) == names                      # the model's names are timm's
        x = torch.randn(2, 3, 3 * b.patch_size[0] - 3, 2 * b.patch_size[1])
        assert [f.shape for f in b(x)] == [f.shape for f in plain(x)]  # padded alike
        if adapter in WEIGHTS:                                         # the contract has seen that merging changes nothing
            b.merge()
            assert set(b.model.state_dict()) == names and not any(p.requires_grad for p in b.parameters())


def test_a_model_without_linear_maps():
    for adapter in ("lora", "soma"):
        m = create_model("resnet50", pretrained=False, layers=(1, 1, 2, 1), channels=(4, 8, 12, 16))
        with pytest.raises(ValueError, match="no linear maps"): create_backbone(m, spec(adapter))


def test_token_adapters_cannot_be_merged():
    with pytest.raises(ValueError, match="changes features"): create_backbone("toy_vit", "set").merge()


def test_no_name_is_missing_in_a_fresh_process():
    code = "from causal_tune import list_adapters; print(*list_adapters())"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert names.split() == ["none", "rein", "causal_tune", "set", "fada", "lora", "soma", "full"]


def linear(layer, v): # one vector through a map, number by number
    return [sum(w * x for w, x in zip(row, v)) + b for row, b in zip(layer.weight.tolist(), layer.bias.tolist())]


def softmax(scores):
    weights = [math.exp(s) for s in scores]
    return [w / sum(weights) for w in weights]


def normalised(numbers): # as instance norm has it
    mean = sum(numbers) / len(numbers)
    variance = sum((x - mean) ** 2 for x in numbers) / len(numbers)
    return [(x - mean) / math.sqrt(variance + 1e-5) for x in numbers]


def branch(v, shares, tokens, first, second): # MLP2(shares of the tokens but the first, through MLP1, + v)
    values = [linear(first, t) for t in tokens[1:]]
    collected = [sum(s * value[k] for s, value in zip(shares[1:], values)) for k in range(len(v))]
    return linear(second, [d + x for d, x in zip(collected, v)])


def waves(x, sign): # (rows, columns) of numbers, by its definition; nothing is scaled
    R, C = len(x), len(x[0])
    sums = [[sum(x[r][c] * cmath.exp(sign * 2j * math.pi * (k * r / R + l * c / C)) for r in range(R) for c in range(C))
             for l in range(C)] for k in range(R)]
    return [[z if abs(z.imag) > 1e-12 else complex(z.real) for z in row] for row in sums] # or rounding would make -pi of pi


def dot(a, b): return sum(x * y for x, y in zip(a, b))


def away_from_start(spec, **options):
    torch.manual_seed(0)
    adapter = create_adapter(spec, 2, 4, query_dim=8, num_tokens=3, **options)
    for p in adapter.parameters(): p.data += .3 * torch.randn_like(p)
    return adapter


@torch.no_grad()
def test_set_as_described_by_hand():
    "A 2 x 3 grid of 4 channels, two images: each channel's plane is transformed, similarities are normalised over positions."
    adapter, x = away_from_start("set", rank=2), torch.randn(2, 6, 4)
    phases, amplitudes = adapter.tokens(1).tolist(), adapter.second.tokens(1).tolist()
    expected = torch.zeros(2, 6, 4)
    for image in range(2):
        spectra = [waves(x[image, :, k].view(2, 3).tolist(), -1) for k in range(4)]
        F = [[spectra[k][n // 3][n % 3] / math.sqrt(6) for k in range(4)] for n in range(6)]
        a, p = [[abs(z) for z in row] for row in F], [[cmath.phase(z) for z in row] for row in F]
        maps = [normalised([dot(a[n], t) / 2 for n in range(6)]) for t in amplitudes]
        new = []
        for n in range(6):
            y = branch(p[n], softmax([dot(p[n], t) / 2 for t in phases]), phases, adapter.mlp_token2feat, adapter.mlp_delta_f)
            z = branch(a[n], softmax([m[n] for m in maps]), amplitudes, adapter.mlp_token2feat2, adapter.mlp_delta_f2)
            new.append([cmath.rect(1, p[n][k] + y[k]) * (a[n][k] + z[k]) for k in range(4)])
        for k in range(4):
            back = waves([[new[3 * r + c][k] for c in range(3)] for r in range(2)], 1)
            expected[image, :, k] = torch.tensor([back[n // 3][n % 3].real / math.sqrt(6) for n in range(6)])
    assert torch.allclose(adapter(x, 1, (2, 3)), x + adapter.scale * (expected - x), atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("images, channels", [(1, 4), (2, 4), (3, 5)])
def test_set_as_released_by_hand(images, channels):
    "Two positions: images x channels are transformed, similarities are normalised over tokens, half of the channels are read back."
    torch.manual_seed(1)
    adapter = create_adapter("set:variant=released", 2, channels, query_dim=8, num_tokens=3, rank=2)
    for p in adapter.parameters(): p.data += .3 * torch.randn_like(p)
    x = torch.randn(images, 2, channels)
    phases, amplitudes = adapter.tokens(1).tolist(), adapter.learnable_tokens2[1].tolist()
    root, expected = math.sqrt(channels), torch.zeros_like(x)
    for n in range(2):
        F = waves(x[:, n].tolist(), -1)
        new = []
        for row in F:
            a, p = [abs(z) for z in row], [cmath.phase(z) for z in row]
            y = branch(p, softmax([dot(p, t) / root for t in phases]), phases, adapter.mlp_token2feat, adapter.mlp_delta_f)
            even = softmax([s / root for s in normalised([dot(a, t) for t in amplitudes])])
            z = branch(a, even, amplitudes, adapter.mlp_token2feat2, adapter.mlp_delta_f2)
            new.append([cmath.rect(1, y[k]) * z[k] / math.sqrt(2 * channels) for k in range(channels // 2 + 1)])
        rows = [[sum(new[r][k] * cmath.exp(2j * math.pi * i * r / images) for r in range(images)) / math.sqrt(images)
                 for k in range(channels // 2 + 1)] for i in range(images)]
        for i in range(images):
            for c in range(channels):
                mirrored = [rows[i][k] if k < len(rows[i]) else rows[i][channels - k].conjugate() for k in range(channels)]
                there = sum((z.real if k in (0, channels / 2) else z) * cmath.exp(2j * math.pi * k * c / channels) for k, z in enumerate(mirrored))
                expected[i, n, c] = there.real / root
    assert torch.allclose(adapter(x, 1, (1, 2)), x + adapter.scale * expected, atol=1e-4)


SMALL = Recipe("small", train="toyscapes:domain=clear,n=4", head="dpt:width=8", crop=(40, 48), iterations=3, batch_size=2, lr=1e-2,
               save_every=1)

TRAINED = [("lora", dict(rank=4)), ("soma:first_layer=3,bias=true", dict(rank=4)), ("full", {}),
           ("set:variant=released", dict(num_tokens=8, init="scale")), ("fada", dict(num_tokens=8, init="scale"))]

def test_trained_and_loaded(tmp_path):
    for i, (adapter, fields) in enumerate(TRAINED):
        folder = tmp_path / str(i)
        recipe, x = replace(SMALL, adapter=adapter, **fields), torch.randn(1, 3, 50, 70)
        start = build_segmentor(recipe, 19).backbone(x)[-1]
        whole = train(recipe, folder / "whole")
        loaded = load_checkpoint(folder / "whole" / "checkpoint.pt")[0]
        with torch.no_grad():
            assert torch.equal(whole(x), loaded(x))
            assert not torch.allclose(whole.backbone(x)[-1], start, atol=1e-3)
            if not adapter.startswith(("set", "fada")):
                before = loaded.predict((x[0].permute(1, 2, 0) * 40 + 128).clamp(0, 255).byte().numpy())
                loaded.backbone.merge()
                assert (loaded.predict((x[0].permute(1, 2, 0) * 40 + 128).clamp(0, 255).byte().numpy()) == before).mean() > .999
