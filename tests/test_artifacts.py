"""The artifact tables on small copies of ViT, Eva and SAM, with and without prefix tokens, and on models they cannot take."""
import pytest
torch = pytest.importorskip("torch")
import numpy as np
import causal_tune  # noqa: F401  # before timm
from timm.models import ConvNeXt, Eva, ResNet, VisionTransformer, VisionTransformerSAM
from causal_tune.models.backbones import create_backbone
from causal_tune.models.pretrained import PRESETS, create_model, model_class
from causal_tune.research.observation import artifact_report, feature_statistics, outlier_table, outlier_tokens

VIT = dict(depth=3, embed_dim=48, num_heads=3)
SMALL = {VisionTransformer: VIT | dict(img_size=64), Eva: VIT | dict(img_size=64),
         VisionTransformerSAM: VIT | dict(global_attn_indexes=(1,), window_size=3),
         ConvNeXt: dict(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)), ResNet: dict(layers=(1, 1, 2, 1), channels=(4, 8, 12, 16))}
PREFIX = {"dinov2_s": 1, "dinov2_s_reg": 5, "dinov3_s": 5, "eva02_l": 1, "siglip2_b": 0, "sam_b": 0}


def small(name):
    torch.manual_seed(0)
    b = create_backbone(create_model(name, pretrained=False, **SMALL[model_class(PRESETS[name][0])]))
    for p in b.model.parameters(): p.data += .02 * torch.randn_like(p)  # some positions start at 0
    return b


@pytest.fixture(scope="module")
def images():
    random = torch.Generator().manual_seed(0)
    draw = lambda n: torch.randint(0, 256, (n, 3, 90, 128), dtype=torch.uint8, generator=random)  # 90: padded to 96
    return {"a": draw(3), "b": draw(2)}


def plant(backbone, layer, places):
    "Context: outlying tokens at these places after a block."
    direction = torch.randn(backbone.channels, generator=torch.manual_seed(0))
    def add(x, layer):
        x = x.clone()
        for (row, column), size in places.items(): x[:, :, row, column] += size * direction / direction.norm()
        return x
    return backbone.intervene(add, layers=[layer])


def test_planted_outliers_are_found(images):
    for name in PREFIX: planted_outliers_are_found(name, images)


def planted_outliers_are_found(name, images):
    b, spots = small(name), {(0, 7): 900., (4, 2): 1500.}
    plain = feature_statistics(b, images)
    with plant(b, 1, spots): seen = feature_statistics(b, images)
    for d in images:
        assert np.array_equal(seen.norms[d][:, 0], plain.norms[d][:, 0])
        new = outlier_tokens(seen.norms[d][:, 1], 8) & ~outlier_tokens(plain.norms[d][:, 1], 8)
        assert sorted({tuple(p) for p in np.argwhere(new)[:, 1:].tolist()}) == sorted(spots) and new.sum() == 2 * len(new), name
    rows = outlier_table(seen.norms, 8).query("layer == 1")
    assert rows.at_place.eq(1).all() and rows.ratio.gt(5).all(), name
    assert all(np.array_equal(feature_statistics(b, images).norms[d], plain.norms[d]) for d in images), "the hook stayed"


def test_neither_an_adapter_nor_the_batch_size_matters(images):
    "The tables describe what each block computed before the adapter; at a zero start it changes nothing."
    b = small("dinov2_s_reg")
    one, all_ = feature_statistics(b, images, batch=1), feature_statistics(b, images, batch=8)
    for d in images:
        assert np.allclose(one.norms[d], all_.norms[d], rtol=1e-4) and np.allclose(one.kept[d], all_.kept[d], rtol=1e-3, atol=1e-4)
    plain = small("dinov2_s")
    tuned = create_backbone(create_model("dinov2_s", pretrained=False, **SMALL[VisionTransformer]), "rein", init="zero",
                            num_tokens=6, rank=2)
    tuned.model.load_state_dict(plain.model.state_dict())
    a, b = feature_statistics(plain, images), feature_statistics(tuned, images)
    assert all(np.allclose(a.norms[d], b.norms[d], rtol=1e-4) for d in images)


def test_learnable_band_leaves_no_gradient(images):
    from causal_tune.spectra.bands import create_band
    band = create_band("learnable")
    table = artifact_report(small("dinov2_s"), images, band)["filter"]
    assert table.outliers_kept.between(0, 1).all() and band.raw_low.grad is None


def test_bad_images_and_models_with_stages_are_refused(images):
    with pytest.raises(ValueError, match="several sizes"): feature_statistics(small("convnext_t"), images) # resnet50 is refused in the chapter
    b = small("dinov2_s")
    with pytest.raises(ValueError, match="uint8"): feature_statistics(b, {"a": images["a"].float()})
    with pytest.raises(ValueError, match="No images"): feature_statistics(b, {"a": images["a"][:0]})
