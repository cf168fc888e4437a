"""What the chapter on evidence leaves out: real video, segmentors, and that nothing outside is touched."""
import inspect, os
from pathlib import Path
import numpy as np, pytest, torch
from causal_tune.backbones import create_backbone
from causal_tune.bands import BANDS
from causal_tune.core import parse_spec
from causal_tune.datasets import load_dataset
from causal_tune.evidence import (EDGES, band_table, corruption_stand_ins, gather_frames, measure, perturbed, stand_ins,
                                  suggest_band)
from causal_tune.recipes import get_recipe
from causal_tune.segmentor import create_segmentor

def street(n=16, **options): return load_dataset(f"toyscapes:domain=clear,split=train,n={n}", size=(96, 128), **options)
CHANGES = {k: stand_ins()[k] for k in ("noise", "spurious")}
FAST = dict(layers=[1], edges=(0, .2, .7, 2), changes=CHANGES)

def test_a_suggestion_is_a_recipes_band_and_leaves_the_random_numbers_alone():
    segmentor = create_segmentor("toy_vit", "none", "linear", pretrained=False)
    torch.manual_seed(3); before = torch.get_rng_state()
    a, b = suggest_band(segmentor, street(), **FAST), suggest_band(segmentor.backbone, street(), **FAST)
    assert torch.equal(before, torch.get_rng_state())
    assert a.spec == b.spec and a.table.equals(b.table)
    assert parse_spec(str(a))[0] in BANDS and get_recipe("demo", adapter="causal_tune", band=a.spec).band == a.spec

def test_a_suggestion_takes_one_data_set_and_asks_for_no_target():
    names = list(inspect.signature(suggest_band).parameters)
    assert names[:2] == ["model", "data"] and not [n for n in names if "target" in n or "domain" in n]
    with pytest.raises(ValueError, match="source"): suggest_band(None, {"clear": street(), "fog": street()})

def test_the_order_of_images_and_the_size_of_batches_do_not_matter():
    frames = gather_frames({d: load_dataset(f"toyscapes:domain={d},split=val,n=16", size=(96, 128)) for d in ("clear", "night")})
    order = np.random.default_rng(0).permutation(32)
    mixed = frames._replace(**{k: getattr(frames, k)[order] for k in ("images", "labels", "domain", "scene")})
    options = dict(layers=[1], edges=(0, .2, .7, 2), pairs=False)
    backbone = create_backbone("toy_vit", pretrained=False).eval()
    one = measure(backbone, frames, **options).energies
    for other in (measure(backbone, mixed, **options).energies, measure(backbone, frames, batch=3, budget=1, **options).energies):
        assert np.allclose(one[["share", "db", "absolute"]], other[["share", "db", "absolute"]], atol=1e-2)

@pytest.mark.parametrize("grid", [(12, 16), (18, 24), (24, 32), (32, 32), (64, 64)])
def test_no_ring_is_empty_on_common_grids(grid): assert band_table(*grid, EDGES).coefficients.min() >= 1

def test_corruptions_serve_as_stand_ins():
    pytest.importorskip("imagecorruptions")
    changes = corruption_stand_ins()
    assert len(changes) == 11 and not {"fog", "snow", "frost", "elastic_transform"} & set(changes)
    frames = gather_frames({"clear": street(2)})
    chosen = {k: changes[k] for k in ("gaussian_noise", "jpeg_compression")}
    a, b = perturbed(frames, chosen), perturbed(frames, chosen)
    assert torch.equal(a.images, b.images) and not torch.equal(a.images[2:4], a.images[:2])

def test_neighbouring_frames_of_a_video_stay_together():
    root = Path(os.environ.get("CAUSAL_TUNE_DATA", "data"))
    if not (root / "camvid").is_dir(): pytest.skip("no CamVid here")
    data = load_dataset("camvid:split=train,domain=day,n=24", root, size=(96, 128))
    assert np.bincount(gather_frames({"day": data}, block=3).scene).tolist() == [3] * 8
    assert isinstance(str(suggest_band(create_backbone("toy_vit", pretrained=False).eval(), data, block=3, folds=2, **FAST)), str)
