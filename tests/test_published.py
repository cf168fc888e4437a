"""The published protocol against its recordings, and trips there and back with the published head.

The recordings are too large for the repository: where `CAUSAL_TUNE_DATA/golden` holds them they are compared, elsewhere
these tests are skipped.
"""
import json, os
from dataclasses import replace
from itertools import product
from pathlib import Path
import numpy as np
import pytest
import torch
import causal_tune as ct
from causal_tune.data import augment as D, frames
from causal_tune.published.checkpoints import PUBLISHED_PREFIXES, load_published, published_state, segmentor_from_published
from causal_tune.training.evaluation import accuracy, confusion, miou
from causal_tune.training.recipe import RECIPES, Recipe
from causal_tune.training.build import build_segmentor, lr_factor, parameter_groups
from causal_tune.training.checkpoint import load_checkpoint
from causal_tune.training.loop import report_on, train
from torchvision import tv_tensors
from torchvision.transforms import v2

GOLDEN = Path(os.environ.get("CAUSAL_TUNE_DATA", "data")) / "golden"
recorded = pytest.mark.skipif(not (GOLDEN / "misc.pt").exists(), reason="the recordings are not here")
PUBLISHED = [n for n in RECIPES if n.startswith(("c2", "g2"))]
HEAD = "mask2former:width=32,num_heads=4,encoder_layers=1,decoder_layers=2,encoder_hidden=32,decoder_hidden=32,points=64"


def misc(key): return torch.load(GOLDEN / "misc.pt", weights_only=True)[key]
def chw(image): return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@recorded
@pytest.mark.parametrize("recipe, case", [("c2acdc_512", "poly_512"), ("g2cbm_1024", "warm_poly_1024")])
def test_learning_rates(recipe, case):
    r, wanted = RECIPES[recipe], misc("lr")[case]
    for t, lr in wanted.items():
        t = r.iterations if t == "after" else int(t)
        assert r.lr * lr_factor(t, r.iterations, r.warmup, r.power) == pytest.approx(lr, rel=1e-6, abs=1e-18), t


@recorded
@pytest.mark.parametrize("kind, dead", [("rein", ()), ("causal", ("learnable_tokens2", "mlp_token2feat2", "mlp_delta_f2"))])
def test_every_parameter_has_its_rate_and_decay(kind, dead):
    "Only what can never change is in no group of ours."
    wanted = {row["name"]: row for row in json.loads((GOLDEN / f"param_groups_{kind}.json").read_text())}
    torch.manual_seed(0)
    s = ct.create_segmentor("toy_vit", dict(rein="rein", causal="causal_tune:variant=released")[kind], HEAD.replace(
        "encoder_layers=1", "encoder_layers=2").replace("decoder_layers=2", "decoder_layers=3"), pretrained=False, query_dim=32)
    names = {id(p): prefix + n for prefix, m in zip(PUBLISHED_PREFIXES, (s.adapter, s.backbone.model, s.head))
             for n, p in m.named_parameters()}
    r = RECIPES["c2acdc_512"]
    ours = {names[id(p)]: g["weight_decay"] for g in parameter_groups(s, r.weight_decay) for p in g["params"]}
    left = {n for n in wanted if n.startswith(tuple(f"backbone.reins.{d}" for d in dead))} if dead else set()
    assert ours == {n: row["weight_decay"] for n, row in wanted.items() if n not in left}
    assert {row["lr"] for row in wanted.values()} == {r.lr}


def recorded_draws(seed):
    "What the published distortion draws, in its order."
    draw, params = np.random.RandomState(seed), dict.fromkeys(
        ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor"))
    if draw.randint(2): params["brightness_factor"] = draw.uniform(-32, 32)
    params["contrast_before"] = draw.randint(2) == 1
    if params["contrast_before"] and draw.randint(2): params["contrast_factor"] = draw.uniform(.5, 1.5)
    if draw.randint(2): params["saturation_factor"] = draw.uniform(.5, 1.5)
    if draw.randint(2): params["hue_factor"] = draw.randint(-18, 18)
    if not params["contrast_before"] and draw.randint(2): params["contrast_factor"] = draw.uniform(.5, 1.5)
    return params


@recorded
def test_photometric_distortion_with_the_recorded_draws():
    aug = misc("aug")  # recorded in OpenCV's order of channels
    image = tv_tensors.Image(chw(aug["img"].numpy()[..., ::-1]))
    for seed, wanted in aug["pmd"].items():
        found = D.PhotometricDistort().transform(image, recorded_draws(int(seed)))
        assert torch.equal(found.flip(0), chw(wanted.numpy())), seed


def test_photometric_draws_are_distributed_as_published():
    torch.manual_seed(0)
    drawn = [D.PhotometricDistort().make_params([tv_tensors.Image(torch.zeros(3, 1, 1))]) for _ in range(4000)]
    for name, low, high in (("brightness", -32, 32), ("contrast", .5, 1.5), ("saturation", .5, 1.5), ("hue", -18, 18)):
        values = [v for p in drawn if (v := p[f"{name}_factor"]) is not None]
        assert abs(len(values) / len(drawn) - .5) < .04 and low <= min(values) and max(values) <= high
        assert abs(np.mean(values) - (low + high) / 2) < .03 * (high - low)
    assert abs(np.mean([p["contrast_before"] for p in drawn]) - .5) < .04


@recorded
def test_crops_with_the_recorded_draws(monkeypatch):
    aug = misc("aug")
    pair = tv_tensors.Image(chw(aug["img"].numpy())), tv_tensors.Mask(aug["lab"].long())
    for seed, (image, label) in aug["crop"].items():
        draws = np.random.RandomState(int(seed))
        with monkeypatch.context() as m:
            m.setattr(D.torch, "randint", lambda high, size: draws.randint(0, high))
            found = D.CatMaxRatioCrop((48, 48))(*pair)
        assert torch.equal(found[0], chw(image.numpy())) and torch.equal(found[1], label.long()), seed


@recorded
def test_sizes_of_training_images():
    aug = misc("aug")
    pair = tv_tensors.Image(chw(aug["img"].numpy())), tv_tensors.Mask(aug["lab"].long())
    for image, label, *_ in aug["resize"].values():
        found = v2.RandomShortestSize([image.shape[0]], max_size=384, antialias=False)(*pair)
        assert torch.equal(found[1], label.long())
        assert (found[0].int() - chw(image.numpy()).int()).abs().max() <= 1  # torch and OpenCV round differently


@recorded
def test_the_size_of_a_target():
    aug = misc("aug")
    load = lambda: (aug["img"].numpy(), aug["lab"].numpy())
    image, label = frames.fit_pair(load, (50, 100), "original")
    assert np.array_equal(image, aug["test_resize"].numpy()) and label.shape == (96, 160)


@recorded
def test_normalised_and_padded():
    aug = misc("aug")  # every third pixel was kept
    image, label = D.PairTransform([D.PadTo((128, 192))])(chw(aug["img"].numpy()[..., ::-1]), aug["lab"].long())
    found = ct.create_backbone("toy_vit", pretrained=False)
    found.mean, found.std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    gap = (found.normalise(image)[:, ::3, ::3] - aug["preproc_train"]).abs()
    assert gap[:, :32, :54].max() < 1e-5
    assert gap.max() < .01  # the padding is the mean colour, rounded to a whole number
    assert label.eq(255).float().mean() == aug["preproc_gt_ignore_frac"]


def test_transforms_of_the_recipes():
    for name in PUBLISHED:
        r = RECIPES[name]
        t = D.train_transform(r.crop, r.scale, color=r.color, cat_max_ratio=r.cat_max_ratio, antialias=r.antialias)
        assert t.steps[0].min_size == [int(r.crop[0] * .1 * x) for x in range(5, 21)] and t.steps[0].max_size == 4 * r.crop[0]
        assert not t.steps[0].antialias and t.steps[1].max_ratio == .75 and t.steps[2].p == .5


@recorded
def test_figures():
    case, absent = misc("metric"), misc("metric_absent")
    cms = np.stack([confusion(p, g, 19) for p, g in zip(case["preds"], case["gts"])])
    groups = dict(citys=cms[0], bdd=cms[1] + cms[3], map=cms[2])
    found = {f"{n}_{k}": 100 * float(v) for n, cm in groups.items()
             for k, v in zip(("aAcc", "mAcc", "mIoU"), (*accuracy(cm), miou(cm)))}
    for k in ("aAcc", "mIoU", "mAcc"): found[f"mean_{k}"] = np.mean([found[f"{n}_{k}"] for n in groups])
    assert found == pytest.approx(case["result"], abs=.0051)  # recorded with two places
    cm = confusion(absent["pred"], absent["gt"], 1 + int(max(absent["pred"].max(), 18)))
    for k, v in zip(("aAcc", "mAcc", "mIoU"), (*accuracy(cm), miou(cm))):
        assert 100 * v == pytest.approx(absent["result"][f"x_{k}"], abs=.0051)


@pytest.fixture(scope="module")
def tiny(weights):
    return Recipe(train="toyscapes:domain=clear,split=train,n=4", targets=("toyscapes:domain=fog,split=test,n=2,size=32x48",),
                  weights=str(weights), head=HEAD, adapter="causal_tune", variant="released", crop=(64, 64), iterations=3,
                  batch_size=2, lr=1e-3, window=(64, 64), stride=(43, 43), antialias=False)


@pytest.mark.parametrize("adapter, variant", [("rein", None), ("causal_tune", "described"), ("causal_tune", "released")])
def test_trained_saved_and_loaded_it_scores_the_same(tiny, tmp_path, monkeypatch, adapter, variant):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    r = replace(tiny, adapter=adapter, variant=variant, targets=("toyscapes:domain=fog,split=test,n=2,size=96x128",))
    rows = report_on(train(r, tmp_path), r)[0]
    back, recipe, _ = load_checkpoint(tmp_path / "checkpoint.pt")
    assert recipe == r and report_on(back, recipe)[0] == rows
    assert rows[0]["data"].endswith("size=96x128") and 0 <= rows[0]["miou"] <= rows[0]["macc"] <= 1 and 0 < rows[0]["aacc"]


@pytest.mark.parametrize("adapter", ["rein", "causal_tune:variant=released"])
def test_published_names_and_back(adapter):
    "Into a segmentor of the same sizes, and into one that is made from the names; toy_vit's stem has no published names."
    s, other = (ct.create_segmentor("vit_tiny_patch16_224", adapter, HEAD, pretrained=False, img_size=64, query_dim=32)
                for _ in "12")
    images, backbone = torch.randn(1, 3, 64, 64), s.backbone.model.state_dict()
    made = segmentor_from_published(published_state(s), 3, 64, decoder_heads=4, backbone=backbone)
    with torch.no_grad():
        wanted = s.eval()(images)
        assert (wanted - other.eval()(images)).abs().max() > 1e-4
        assert torch.equal(load_published(other, published_state(s), backbone)(images), wanted)
        assert torch.allclose(made(images), wanted, atol=1e-5)


def test_a_recipe_without_its_weights_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="dinov2_converted.pth"): build_segmentor(RECIPES["c2acdc_512"], 19)


def test_recipes_build_at_full_size():
    "On the meta device, with the adapters that the published tables compare."
    for name, (adapter, variant) in product(PUBLISHED, (("causal_tune", None), ("causal_tune", "released"), ("rein", None))):
        r = RECIPES[name]
        with torch.device("meta"): s = build_segmentor(replace(r, adapter=adapter, variant=variant), 19, pretrained=False)
        assert s.backbone.model.pos_embed.shape == (1, (r.crop[0] // 16) ** 2 + 1, 1024)
        assert s.backbone.out_layers == (7, 11, 15, 23)


def test_soma_as_published_at_full_size():
    "Low-rank maps and biases of 16 blocks, at half the head's rate; both decay."
    r = RECIPES["soma_g2cbm_512"]
    with torch.device("meta"): s = build_segmentor(r, 19, pretrained=False)
    assert sum(p.numel() for p in s.adapter.parameters() if p.requires_grad) == 4_718_592 + 16 * 9 * 1024
    adapter = {id(p) for p in s.adapter.parameters()}
    groups = [g for g in parameter_groups(s, r.weight_decay, r.adapter_lr, r.backbone_lr) if g["params"] and id(g["params"][0]) in adapter]
    assert [(g["rate"], g["weight_decay"], len(g["params"])) for g in groups] == [(.5, .05, 16 * 4 * 3)]
