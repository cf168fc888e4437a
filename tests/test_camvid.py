"""The real driving frames, if they are available."""
import os
from pathlib import Path
import numpy as np
import pytest

DATA = os.environ.get("CAUSAL_TUNE_DATA")
pytestmark = pytest.mark.skipif(not DATA or not (Path(DATA) / "camvid").is_dir(),
                                reason="CAUSAL_TUNE_DATA names no folder that holds camvid")


@pytest.mark.parametrize("spec, frames", [("split=train,domain=day", 305), ("split=train,domain=dusk", 62),
                                          ("split=val,domain=day", 101), ("split=test,domain=day", 171)])
def test_frames_of_each_domain(spec, frames):
    from causal_tune.data.datasets import load_dataset
    data = load_dataset(f"camvid:{spec}")
    assert len(data) == frames and data.domain == spec.split("=")[-1]


def test_no_frame_is_both_trained_on_and_reported():
    from causal_tune.data.datasets import load_dataset
    from causal_tune.training.recipe import get_recipe
    recipe = get_recipe("camvid_day2dusk")
    specs = recipe.train, recipe.validate, *recipe.targets
    names = {spec: {s.name for s in load_dataset(spec).samples} for spec in specs}
    assert len(set.union(*names.values())) == sum(map(len, names.values()))


def test_labels_use_the_classes():
    from causal_tune.data.datasets import load_dataset
    seen = set()
    for item in load_dataset("camvid:split=all,n=12"):
        assert item["image"].shape[1:] == item["label"].shape == (360, 480)
        seen |= set(item["label"].unique().tolist())
    assert {0, 1, 3, 4, 5, 8} <= seen <= {*range(11), 255}


def test_predict_and_evaluate():
    from causal_tune.data.datasets import load_dataset
    from causal_tune.training.evaluation import miou
    from causal_tune.training.recipe import get_recipe
    from causal_tune.training.build import build_segmentor
    from causal_tune.training.loop import evaluate_on
    recipe, spec = get_recipe("camvid_day2dusk", adapter="causal_tune"), "camvid:split=train,domain=dusk,n=3"
    segmentor = build_segmentor(recipe, 11, pretrained=False).eval()
    data, cms = evaluate_on(segmentor, recipe, spec)
    assert len(cms) == len(data) == 3 and 0 <= miou(cms.sum(0)) < .5
    assert cms.sum() == sum((item["label"] != 255).sum() for item in load_dataset(spec))
    image = data[0]["image"].permute(1, 2, 0).numpy()
    assert segmentor.predict(image, recipe.eval_size).shape == image.shape[:2] and np.isfinite(cms).all()
