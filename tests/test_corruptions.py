"""Corrupted frames from descriptor to score: the same pixels everywhere, labels untouched, real folders read."""
import os, subprocess, sys
from pathlib import Path
import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from conftest import ENV, ROOT

pytest.importorskip("imagecorruptions", reason="imagecorruptions is not installed")
DATA = os.environ.get("CAUSAL_TUNE_DATA")
camvid = pytest.mark.skipif(not DATA or not (Path(DATA) / "camvid").is_dir(), reason="CAUSAL_TUNE_DATA holds no camvid")
TOY = "toyscapes:domain=clear,split=test,n=2"
DAY = "camvid:split=test,domain=day,n=2"


def load(spec, *args, **kwargs):
    from causal_tune.data.datasets import load_dataset
    return load_dataset(spec, *args, **kwargs)


@pytest.mark.parametrize("spec", [TOY, pytest.param(DAY, marks=camvid)])
def test_one_severity_and_all(spec):
    clean, third, every = load(spec), load(f"{spec},corruption=fog:3"), load(f"{spec},corruption=fog")
    assert (len(clean), len(third), len(every)) == (2, 2, 10) and (third.domain, every.domain) == ("fog:3", "fog:1-5")
    assert [s.name for s in every.samples[::5]] == [s.name for s in third.samples] == [s.name for s in clean.samples]
    for i in range(2):
        assert torch.equal(third[i]["image"], every[5 * i + 2]["image"])
        assert not torch.equal(third[i]["image"], clean[i]["image"])
        for item in (third[i], *(every[5 * i + j] for j in range(5))):
            assert torch.equal(item["label"], clean[i]["label"]) and item["image"].shape == clean[i]["image"].shape
    assert len({every[j]["image"].numpy().tobytes() for j in range(5)}) == 5


def test_n_chooses_clean_frames(tmp_path):
    copy(tmp_path)
    spec = "cityscapes:split=val,n=2"
    names = [s.name for s in load(spec, tmp_path).samples]
    assert [s.name for s in load(f"{spec},corruption=snow", tmp_path).samples] == [n for n in names for _ in range(5)]


@pytest.mark.parametrize("spec", [TOY, pytest.param(DAY, marks=camvid)])
def test_every_corruption_and_its_size(spec):
    from causal_tune.data.corruptions import CORRUPTIONS
    from causal_tune.data.images import fit_size
    size = load(spec)[0]["label"].shape
    for name in CORRUPTIONS:
        specs = (f"{spec},{more}corruption={name}:5" for more in ("", "size=96x128,"))
        full, small = (load(s, label_size="original")[0] for s in specs)
        assert full["image"].shape[1:] == size and small["image"].shape[1:] == fit_size(size, (96, 128))
        # corrupted at the size it has, resized afterwards
        wanted = cv2.resize(full["image"].permute(1, 2, 0).numpy(), small["image"].shape[:0:-1])
        assert (small["image"].permute(1, 2, 0).numpy() == wanted).all(), name
        assert torch.equal(full["label"], small["label"])


CHILD = """
import sys, zlib
import numpy as np
from causal_tune.data.datasets import load_dataset
np.random.seed(int(sys.argv[1]))
for spec in sys.argv[2:]:
    print(*(zlib.crc32(x["image"].numpy().tobytes()) for x in load_dataset(spec)))
"""


def test_same_pixels_in_other_processes():
    "Whatever Python's string hashes and numpy's generator are there; and in the workers of a loader."
    import zlib
    from torch.utils.data import DataLoader
    drawn = "impulse_noise", "glass_blur", "snow", "frost", "elastic_transform"
    specs = [f"{TOY},size=96x128,corruption={c}:2" for c in drawn]
    specs += [f"{DAY},corruption=shot_noise:4"] if DATA and (Path(DATA) / "camvid").is_dir() else []
    here = [" ".join(str(zlib.crc32(x["image"].numpy().tobytes())) for x in load(spec)) for spec in specs]
    env = ENV | dict(PYTHONHASHSEED="1", PYTHONPATH=str(ROOT))
    words = [sys.executable, "-c", CHILD, "2", *specs]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == here, done.stderr
    data = load(specs[2])
    loader = DataLoader(data, batch_size=1, num_workers=1, collate_fn=lambda items: items[0])
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(loader, data))


def test_numpys_generator_goes_on(monkeypatch):
    from causal_tune.data.corruptions import CORRUPTIONS, corrupt
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    np.random.seed(5); wanted = np.random.rand(3)
    np.random.seed(5)
    for name in CORRUPTIONS: corrupt(image, name, 4, 1)
    assert (np.random.rand(3) == wanted).all()
    monkeypatch.setattr("imagecorruptions.corrupt", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError): corrupt(image, "fog", 4, 1)
    assert (np.random.rand(3) == np.random.RandomState(5).rand(6)[3:]).all()


def test_cityscapes_own_size():
    from causal_tune.data.corruptions import corrupt
    image = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), dtype=np.uint8)
    for name in ("frost", "fog", "motion_blur", "defocus_blur"):
        out = corrupt(image, name, 5)
        assert out.shape == image.shape and out.dtype == np.uint8 and (out != image).mean() > .5


def test_wrong_descriptors():
    for spec, said in {"corruption=fogg:3": "Did you mean 'fog'", "corruption=fog:6": "1, 2, 3, 4, 5", "corruption=fog:": "severity",
                       "corruption=none": "jpeg_compression", "corruptoin=fog": "corruption", "corruption=3": "gaussian_noise"}.items():
        with pytest.raises(ValueError, match=said): load(f"{TOY},{spec}")


def test_without_the_package(monkeypatch, capsys):
    from causal_tune.data.datasets import parse_dataset_spec
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    assert parse_dataset_spec(f"{TOY},corruption=fog")[1]["corruption"] == "fog" and len(load(TOY)) == 2
    with pytest.raises(ValueError, match=r"pip install '\.\[corruptions\]'"): load(f"{TOY},corruption=fog")


# --- folders of Cityscapes-C ----------------------------------------------------------------------------------------

FRAMES = [f"{t}/{t}_00000{i}_000019" for t in ("frankfurt", "lindau", "munster") for i in range(2)]


def copy(root, corruptions=("fog", "snow"), severities=(1, 2, 3, 4, 5)):
    "A small Cityscapes and a Cityscapes-C whose grey tells the severity; labels are linked, as the page on data says."
    def put(path, value):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((48, 96, *value[1:]), value[0], np.uint8)).save(path)
    for f in FRAMES:
        put(root / f"cityscapes/leftImg8bit/val/{f}_leftImg8bit.png", (0, 3))
        put(root / f"cityscapes/gtFine/val/{f}_gtFine_labelTrainIds.png", (13,))
        for c in corruptions:
            for s in severities: put(root / f"cityscapes_c/{c}/{s}/{f}_leftImg8bit.png", (40 * s + (c == "fog"), 3))
    (root / "cityscapes_c/gtFine").symlink_to("../cityscapes/gtFine")
    return root


def test_real_folders(tmp_path):
    copy(tmp_path)
    third, every = load("cityscapes_c:domain=fog,severity=3", tmp_path), load("cityscapes_c:domain=snow", tmp_path)
    assert len(third) == 6 and third.domain == "fog:3" and third[0]["image"].unique().tolist() == [121]
    assert len(every) == 30 and every.domain == "snow:1-5"
    assert {int(x["image"][0, 0, 0]) for x in every} == {40, 80, 120, 160, 200}
    assert all(x["label"].eq(13).all() and x["label"].shape == (48, 96) for x in every)
    assert [s.name for s in third.samples] == FRAMES
    own = load("cityscapes_c:domain=fog,severity=2,n=1,size=24x48", tmp_path / "cityscapes_c")
    assert own[0]["image"].shape == (3, 24, 48)
    with pytest.raises(FileNotFoundError, match="frost/3"): load("cityscapes_c:domain=frost,severity=3", tmp_path)
    with pytest.raises(ValueError, match="severity of cityscapes_c 7"): load("cityscapes_c:severity=7", tmp_path)
    with pytest.raises(ValueError, match="gaussian_noise"): load("cityscapes_c:domain=rain", tmp_path)


def test_check_data(tmp_path, capsys):
    from causal_tune.cli import main
    assert main(["check-data", "cityscapes_c", "--root", str(tmp_path)]) == 1 # it was asked for
    absent = capsys.readouterr().out
    assert absent.startswith("cityscapes_c: not there") and len(absent.splitlines()) == 2
    copy(tmp_path, severities=(3, 5))
    assert main(["check-data", "cityscapes_c", "--root", str(tmp_path)]) == 1 # most of it is missing
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 20 and said.count("96 x 48 (6)") == 4 and "car 100.0 %" in said
    assert "gaussian_noise/1" in said and "more problems" in said


# --- scores ---------------------------------------------------------------------------------------------------------

def test_report(weights, capsys):
    "Two corruptions, each a row of its own; the mean leaves the clean domain out, and an evaluation repeats exactly."
    from causal_tune.cli.entry import print_mean
    from causal_tune.training.recipe import Recipe
    from causal_tune.training.build import build_segmentor
    from causal_tune.training.loop import report_on
    torch.manual_seed(0)
    clear = TOY.replace("n=2", "n=3")
    recipe = Recipe(weights=str(weights), eval_size=(96, 128),
                    targets=(clear, "toyscapes:domain=fog,split=test,n=2", f"{clear},corruption=fog:5",
                             f"{clear},corruption=contrast"))
    segmentor = build_segmentor(recipe, 19).eval()
    rows, counts = report_on(segmentor, recipe)
    assert [r["domain"] for r in rows] == ["clear", "fog", "fog:5", "contrast:1-5"]
    assert {d: len(c) for d, c in counts.items()} == {"clear": 3, "fog": 2, "fog:5": 3, "contrast:1-5": 15}
    assert counts["contrast:1-5"].sum() == 5 * counts["clear"].sum() == 5 * counts["fog:5"].sum()
    assert not np.array_equal(counts["fog:5"], counts["clear"]) and report_on(segmentor, recipe)[0] == rows
    print_mean(rows, recipe)
    mean = np.mean([r["miou"] for r in rows[1:]])
    assert f"mean  mIoU {100 * mean:5.1f} %" in capsys.readouterr().out


def test_recipes():
    from causal_tune.data.corruptions import CORRUPTIONS
    from causal_tune.data.datasets import parse_dataset_spec
    from causal_tune.training.recipe import RECIPES, replace
    day, city = RECIPES["camvid_day2corruptions"], RECIPES["c2cityscapes_c"]
    options = [parse_dataset_spec(t)[1] for t in (*day.targets, *city.targets)]
    assert "corruption" not in options[0] and all(o["n"] == 10 and o["domain"] == "day" for o in options[:16])
    assert [o["corruption"] for o in options[1:16]] == [f"{c}:3" for c in CORRUPTIONS]
    assert [o["corruption"] for o in options[16:]] == list(CORRUPTIONS)
    assert all(o["size"] == (1024, 2048) for o in options[16:])
    for recipe, base in ((day, "camvid_day2dusk"), (city, "c2acdc_1024")):
        assert replace(recipe, name=base, targets=RECIPES[base].targets) == RECIPES[base]


@camvid
def test_recipe_frames():
    from causal_tune.training.recipe import RECIPES
    recipe = RECIPES["camvid_day2corruptions"]
    frames = [[s.name for s in load(t).samples] for t in recipe.targets]
    assert all(f == frames[0] for f in frames) and len(set(frames[0])) == 10
    assert len({load(t).domain for t in recipe.targets}) == 16
    assert not set(frames[0]) & {s.name for s in load(recipe.train).samples}


def test_recipes_are_listed_in_short(cli):
    said = cli("recipes").stdout
    assert "camvid:split=test,domain=day,n=10,corruption=*:3, 15 corruptions" in said
    assert "cityscapes:split=val,corruption=*,size=1024x2048, 15 corruptions" in said
