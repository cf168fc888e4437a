"""Tests beyond the chapter on evidence: real video, segmentors, and that no outside state changes."""
import inspect, os
from pathlib import Path
import numpy as np, pytest, torch
pytest.importorskip("sklearn", reason="probes need scikit-learn: pip install '.[research]'")
from causal_tune.models.backbones import create_backbone
from causal_tune.spectra.bands import BANDS
from causal_tune.core.registry import parse_spec
from causal_tune.data.datasets import load_dataset
from causal_tune.research.evidence import band_evidence
from causal_tune.research.observation import gather_images
from causal_tune.training.recipe import get_recipe
from causal_tune.models.segmentor import create_segmentor
from causal_tune.research.evidence import stand_ins, suggest_band

pytestmark = pytest.mark.slow
def street(n=16, **options): return load_dataset(f"toyscapes:domain=clear,split=train,n={n}", size=(96, 128), **options)
CHANGES = {k: stand_ins()[k] for k in ("noise", "spurious")}
FAST = dict(layers=[1], edges=(0, .2, .7, 2), changes=CHANGES)

def test_a_suggestion_is_a_recipes_band_asks_for_no_target_and_leaves_the_random_numbers_alone():
    names = list(inspect.signature(suggest_band).parameters)
    assert names[:2] == ["model", "data"] and not [n for n in names if "target" in n or "domain" in n]
    segmentor = create_segmentor("toy_vit", "none", "linear", pretrained=False)
    torch.manual_seed(3); before = torch.get_rng_state()
    a, b = suggest_band(segmentor, street(8), **FAST), suggest_band(segmentor.backbone, street(8), **FAST)
    assert torch.equal(before, torch.get_rng_state())
    assert a.spec == b.spec and a.table.equals(b.table)
    assert parse_spec(str(a))[0] in BANDS and get_recipe("demo", adapter="causal_tune", band=a.spec).band == a.spec

def test_the_order_of_images_and_the_size_of_batches_do_not_matter():
    frames = gather_images({d: load_dataset(f"toyscapes:domain={d},split=val,n=16", size=(96, 128)) for d in ("clear", "night")})
    order = {d: np.random.default_rng(i).permutation(16) for i, d in enumerate(("night", "clear"))}   # the domains change places, too
    mixed = frames._replace(images={d: frames.images[d][o] for d, o in order.items()}, scenes={d: frames.scenes[d][o] for d, o in order.items()},
                            labels={d: [frames.labels[d][i] for i in o] for d, o in order.items()})
    options = dict(source="clear", layers=[1], edges=(0, .2, .7, 2), pairs=False)
    backbone = create_backbone("toy_vit", pretrained=False).eval()
    energies = lambda frames, **more: band_evidence(backbone, frames, **options, **more).energies.sort_values(["domain", "band"])
    one = energies(frames)
    for other in (energies(mixed), energies(frames, batch=3)):
        assert np.allclose(one[["share", "db", "absolute"]], other[["share", "db", "absolute"]], atol=1e-2)

def test_neighbouring_frames_of_a_video_stay_together():
    root = Path(os.environ.get("CAUSAL_TUNE_DATA", "data"))
    if not (root / "camvid").is_dir(): pytest.skip("no CamVid here")
    data = load_dataset("camvid:split=train,domain=day,n=24", root, size=(96, 128))
    assert np.bincount(gather_images({"day": data}, block=3).scenes["day"]).tolist() == [3] * 8
