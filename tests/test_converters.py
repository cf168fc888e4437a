"""Labels as the published scripts made them, on small copies of each real folder, through interruptions and kills."""
import json, os, shutil, signal, time, zipfile
from functools import partial
from pathlib import Path
import cv2
import numpy as np
import pytest
from PIL import Image
from conftest import ROOT
from forks import fork

DATA = os.environ.get("CAUSAL_TUNE_DATA")
GOLDEN = Path(DATA or "/nowhere") / "golden"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def recorded():
    "What the published conversion scripts made of small inputs: part of the recording `labels.pt`."
    import torch
    return torch.load(ROOT / "tests" / "fixtures" / "labels.pt", weights_only=True)


def put(path, content):
    "Write an image, an array of ids, bytes or a dict, and the folders above it."
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict): path.write_text(json.dumps(content))
    elif isinstance(content, bytes): path.write_bytes(content)
    elif isinstance(content, Image.Image): content.save(path)
    else: Image.fromarray(np.asarray(content)).save(path)
    return path


def palette(ids):
    "Ids as a palette PNG whose colours are not the ids, which is how GTA and Mapillary store labels."
    image = Image.fromarray(np.asarray(ids, np.uint8))
    image.putpalette([(37 * i + 11) % 256 for i in range(768)])
    return image


def photo(w, h): return RNG.integers(0, 256, (h, w, 3), dtype=np.uint8)


def label(spec, root, index=0):
    from causal_tune.data.datasets import load_dataset
    return load_dataset(spec, root=root)[index]["label"].numpy()


# --- the recorded conversions ---------------------------------------------------------------------------------------

def test_gta(tmp_path, recorded):
    from causal_tune.data.converters import prepare
    put(tmp_path / "gta/images/00001.png", photo(12, 12))
    put(tmp_path / "gta/labels/00001.png", palette(recorded["gta"]["inp"]))
    assert prepare("gta", tmp_path) == (1, 0) and prepare("gta", tmp_path) == (0, 1)
    assert (label("gta:split=train", tmp_path) == recorded["gta"]["out"].numpy()).all()


def test_a_pair_of_gta_that_differs(tmp_path):
    "All frames are compared, not a sample; training takes the label at its image's size, or ignores it."
    from causal_tune.data.converters import check_data
    from causal_tune.data.converters import prepare
    from causal_tune.data.datasets import load_dataset
    from causal_tune.data.augment import train_transform
    for i in range(40):
        ids = np.full((30, 40), 26)
        put(tmp_path / f"gta/images/{i:05d}.png", photo(40, 30))
        put(tmp_path / f"gta/labels/{i:05d}.png", palette(dict([(17, ids[:15, :20]), (23, ids[:, :20])]).get(i, ids)))
    assert prepare("gta", tmp_path) == (40, 0)
    noted = "2 of 40 labels have another size than their image (00017_labelTrainIds.png, 00023_labelTrainIds.png)"
    check = check_data("gta", tmp_path, sample=2)[0]
    assert check.ok and noted in str(check)
    data = load_dataset("gta:split=train", tmp_path, transform=train_transform((32, 32)))
    for i in range(40): assert data[i]["label"].shape == (32, 32), i
    assert (label("gta:split=train", tmp_path, 17) == 13).all() and label("gta:split=train", tmp_path, 17).shape == (30, 40)
    assert (label("gta:split=train", tmp_path, 23) == 255).all(), "half as wide: another frame's label"
    (tmp_path / "gta/labels/00003_labelTrainIds.png").unlink()
    assert prepare("gta", tmp_path) == (1, 39)


def test_sizes_of_all_frames_are_compared(tmp_path):
    from causal_tune.data.converters import check_data
    for i in range(30):
        put(tmp_path / f"bdd100k/images/10k/val/{i:02d}.jpg", photo(8, 6))
        put(tmp_path / f"bdd100k/labels/sem_seg/masks/val/{i:02d}.png", np.zeros((6, 9 if i == 11 else 8), np.uint8))
    check = check_data("bdd100k", tmp_path, sample=2)[0]
    assert "1 of 30 labels have another size than their image (11.png)" in str(check) and not check.ok


def test_cityscapes(tmp_path, recorded):
    from causal_tune.data.converters import prepare
    frame = "aachen/aachen_000000_000019"
    for split in ("train", "val"):
        put(tmp_path / f"cityscapes/leftImg8bit/{split}/{frame}_leftImg8bit.png", photo(64, 48))
        put(tmp_path / f"cityscapes/gtFine/{split}/{frame}_gtFine_polygons.json", recorded["cityscapes"]["json"])
    put(tmp_path / f"cityscapes/gtFine/test/{frame}_gtFine_polygons.json", recorded["cityscapes"]["json"])
    assert prepare("cityscapes", tmp_path) == (2, 0)
    for split in ("train", "val"):
        assert (label(f"cityscapes:split={split}", tmp_path) == recorded["cityscapes"]["out"].numpy()).all()
    assert not list((tmp_path / "cityscapes/gtFine/test").rglob("*.png")), "test outlines are dummies"


def test_mapillary_half(tmp_path, recorded):
    from causal_tune.data.converters import MAPILLARY_IDS, prepare
    recorded, base = recorded["mapillary_resize"], tmp_path / "mapillary"
    back = {t: i for i, t in MAPILLARY_IDS.items()}  # any class that becomes the train id
    ids = np.vectorize(back.get)(recorded["in_lab"].numpy()).astype(np.uint8)
    put(base / "validation/images/a.jpg", recorded["in_jpg"])
    put(base / "validation/v1.2/labels/a.png", palette(ids))
    with pytest.raises(FileNotFoundError, match="mapillary first"): prepare("mapillary-half", tmp_path)
    assert prepare("mapillary", tmp_path) == (1, 0)
    assert prepare("mapillary-half", tmp_path) == (2, 0)
    made = Image.open(next((base / "half/val_img").iterdir()))
    assert (label("mapillary:split=val", tmp_path) == recorded["out_lab"].numpy()).all()
    assert made.format == "JPEG" and (np.asarray(made) == recorded["out_img"].numpy()).all()
    assert str(made.quantization).startswith(recorded["out_jpg_qtables"][:290])


def test_mapillary_in_both_zips(tmp_path):
    "Labels of 1.2 lie in training/labels of its own zip, in training/v1.2/labels of that of 2.0, beside those of 2.0."
    from causal_tune.data.converters import check_data
    from causal_tune.data.converters import prepare
    for version, where in (("1.2", "labels"), ("2.0", "v1.2/labels")):
        root = tmp_path / version
        for part in ("training", "validation"):
            put(root / f"mapillary/{part}/images/a.jpg", photo(8, 6))
            put(root / f"mapillary/{part}/{where}/a.png", palette(np.full((6, 8), 13)))
            if version == "2.0": put(root / f"mapillary/{part}/v2.0/labels/a.png", palette(np.full((6, 8), 100)))
        assert check_data("mapillary", root)[0].next == [f"causal-tune prepare mapillary --root {root}  # 2 files to write"]
        assert prepare("mapillary", root) == (2, 0) and prepare("mapillary-half", root) == (2, 0)
        assert (label("mapillary:split=train", root) == 0).all() and label("mapillary:split=val", root).shape == (3, 4)


def test_mapillary_classes(tmp_path):
    from causal_tune.data.converters import MAPILLARY_CLASSES, MAPILLARY_IDS, prepare
    put(tmp_path / "mapillary/training/images/b.jpg", photo(66, 1))
    put(tmp_path / "mapillary/training/v1.2/labels/b.png", palette([range(66)]))
    assert prepare("mapillary", tmp_path) == (1, 0)
    made = dict(zip(MAPILLARY_CLASSES, label("mapillary:split=train", tmp_path)[0].tolist()))
    assert list(made.values()) == list(MAPILLARY_IDS.values())
    assert [made[c] for c in ("Bird", "Curb", "Car", "Unlabeled")] == [255, 1, 13, 255]
    put(tmp_path / "mapillary/training/v1.2/labels/c.png", palette([[66]]))  # version 2.0 has 124 classes
    with pytest.raises(OSError, match=r"c.png: label ids \[66\] are not in the table"): prepare("mapillary", tmp_path)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="CAUSAL_TUNE_DATA names no folder that holds the whole recordings")
def test_tables_of_the_whole_recordings():
    import torch
    from causal_tune.data.converters import MAPILLARY_CLASSES, MAPILLARY_IDS, POLYGON_TRAIN_IDS, draw_polygons
    from causal_tune.data.labels import CITYSCAPES_IDS, remap
    maps = json.loads((GOLDEN / "label_maps.json").read_text())
    labels = torch.load(GOLDEN / "labels.pt", weights_only=True)
    assert dict(zip(MAPILLARY_CLASSES, MAPILLARY_IDS.values())) == maps["mapillary_train_id_True"]
    assert list(MAPILLARY_CLASSES) == list(maps["mapillary_train_id_True"]) == list(labels["mapillary_train_id_True"])
    trained = {t: i for i, t in CITYSCAPES_IDS.items()}
    assert [trained.get(t, 255) for t in MAPILLARY_IDS.values()] == list(maps["mapillary_train_id_False"].values())
    assert remap(np.arange(36), CITYSCAPES_IDS).tolist() == [maps["gta"][str(i)] for i in range(36)]
    assert (remap(labels["gta"]["inp"], CITYSCAPES_IDS) == labels["gta"]["out"].numpy()).all()
    assert POLYGON_TRAIN_IDS == {name: t for name, (_, t) in labels["cityscapes"]["labels"].items()}
    assert (np.asarray(draw_polygons(labels["cityscapes"]["json"])) == labels["cityscapes"]["out"].numpy()).all()


# --- stopped, killed, run twice at once -----------------------------------------------------------------------------

def convert(root):
    "Every file is half written for a while."
    from io import BytesIO
    from causal_tune.data.converters import prepare
    save = Image.Image.save
    def slowly(self, path, *args, **options):
        save(self, memory := BytesIO(), *args, **options)
        content = memory.getvalue()
        with open(path, "wb") as f:
            f.write(content[:len(content) // 2])
            f.flush()
            time.sleep(.1)
            f.write(content[len(content) // 2:])
    Image.Image.save = slowly
    prepare("gta", root, 2)


FILES = 60


@pytest.fixture
def gta(tmp_path):
    for i in range(FILES): put(tmp_path / f"gta/labels/{i:05d}.png", palette(RNG.integers(0, 35, (30, 40))))
    return tmp_path


def child(root):
    with (root / f"stderr-{time.time_ns()}.txt").open("w") as said:
        return fork(partial(convert, root), root, os.environ | dict(TQDM_DISABLE="1"), said.fileno(), said.fileno()), Path(said.name)


def ended(process): # exit status, what it said
    pid, said = process
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said.read_text()


def made(root): return sorted((root / "gta/labels").glob("*_labelTrainIds.png"))


def stop(root, with_signal):
    "Start a conversion, send it a signal when some more files are there and one is half written, and wait until it has ended."
    before, running = len(made(root)), child(root)
    limit = time.time() + 60
    def early(): return len(made(root)) < before + 4 or not list(root.rglob("*~*"))
    while early() and time.time() < limit: time.sleep(.01)
    os.kill(running[0], with_signal)
    return ended(running)[1]


def check_whole(root):
    "Every file that is there equals what it should be."
    from causal_tune.data.converters import gta_jobs
    for job in gta_jobs(root / "gta"):
        if job.target.exists(): assert (np.asarray(Image.open(job.target)) == np.asarray(job.make())).all(), job.target


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_killed_stopped_and_finished(gta):
    stop(gta, signal.SIGKILL)
    halves, first = list(gta.rglob("*~*")), len(made(gta))
    assert halves and 4 <= first < FILES, "the kill came while files were half written"
    check_whole(gta)
    said = stop(gta, signal.SIGINT)
    second = len(made(gta))
    assert first < second < FILES and f"Stopped with {second} of {FILES} files done" in said
    assert {*gta.rglob("*~*")} <= {*halves}, "Ctrl-C finishes the files in work"
    check_whole(gta)
    times = {f: f.stat().st_mtime_ns for f in made(gta)}
    both = [child(gta), child(gta)]  # two at once do each other no harm
    outputs = [ended(process) for process in both]
    assert [status for status, _ in outputs] == [0, 0], outputs
    assert len(made(gta)) == FILES and not list(gta.rglob("*~*"))
    check_whole(gta)
    assert all(f.stat().st_mtime_ns == t for f, t in times.items()), "finished files are not written again"


def test_unreadable_files_are_listed_and_the_others_made(gta):
    from causal_tune.data.converters import prepare
    for name in ("00003", "00017"):
        path = gta / f"gta/labels/{name}.png"
        path.write_bytes(path.read_bytes()[:-40])
    put(gta / "gta/labels/00020.png", photo(4, 4))  # painted, not ids
    with pytest.raises(OSError, match=f"3 of {FILES} files") as error: prepare("gta", gta)
    assert all(name in str(error.value) for name in ("00003.png", "00017.png", "00020.png"))
    assert len(made(gta)) == FILES - 3 and not list(gta.rglob("*~*"))


def test_nothing_to_convert(tmp_path):
    from causal_tune.data.converters import CONVERTERS, prepare
    for name in CONVERTERS:
        with pytest.raises(FileNotFoundError): prepare(name, tmp_path)
    (tmp_path / "cityscapes").mkdir()
    with pytest.raises(FileNotFoundError, match="polygons.json"): prepare("cityscapes", tmp_path)


# --- what is there --------------------------------------------------------------------------------------------------

def test_check_of_every_layout(tmp_path):
    "A small complete copy of each data set passes the check."
    from causal_tune.data.converters import check_data
    from causal_tune.data.datasets import LAYOUTS
    for name, row in LAYOUTS.items():
        for images, labels in row.splits.values():
            for d in row.domains:
                drives = [s for s, where in (row.sequences or {}).items() if where == d]
                stem = f"{drives[0]}_1" if drives else "town_1"
                put(tmp_path / name / images.format(domain=d) / (stem + row.image[0]), photo(8, 6))
                if not labels: continue
                label = tmp_path / name / labels.format(domain=d) / (stem + row.label[0])
                put(label, np.full((6, 8), 3, np.uint8))
                if row.channel is not None: cv2.imwrite(str(label), np.full((6, 8, 3), 21, np.uint16))
    found = check_data(root=tmp_path)
    assert found.ok, str(found)
    for check in found: assert all(p.images == 1 and p.sizes == {(8, 6): 1} for p in check.parts)


def test_synthia_and_dark_zurich(tmp_path):
    "SYNTHIA's 23 ids stand in the red channel, of 16 bits; Dark Zurich is labelled in val alone."
    from causal_tune.data.converters import check_data
    from causal_tune.data.datasets import load_dataset
    ids = np.arange(23, dtype=np.uint16).reshape(1, 23)
    put(tmp_path / "synthia/RAND_CITYSCAPES/RGB/0000000.png", photo(23, 1))
    (tmp_path / "synthia/RAND_CITYSCAPES/GT/LABELS").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "synthia/RAND_CITYSCAPES/GT/LABELS/0000000.png"), np.dstack([0 * ids, 300 + ids, ids])) # instances in green
    assert label("synthia", tmp_path).tolist() == [[255, 10, 2, 0, 1, 4, 8, 5, 13, 7, 11, 18, 17, 255, 255, 6, 9, 12, 14, 15, 16, 3, 255]]
    for split in ("val", "test"): put(tmp_path / f"dark_zurich/rgb_anon/{split}/night/GOPR0356/frame_1_rgb_anon.png", photo(4, 1))
    put(tmp_path / "dark_zurich/gt/val/night/GOPR0356/frame_1_gt_labelTrainIds.png", np.array([[0, 10, 18, 255]], np.uint8))
    assert label("dark_zurich:split=val", tmp_path).tolist() == [[0, 10, 18, 255]]
    secret = load_dataset("dark_zurich:split=test", root=tmp_path)
    assert secret.domain == "night" and secret[0]["label"].eq(255).all()
    for name in ("synthia", "dark_zurich"): assert check_data(name, tmp_path).ok


def test_check_tells_what_to_run(tmp_path, recorded):
    from causal_tune.data.converters import check_data
    from causal_tune.data.converters import prepare
    put(tmp_path / "mapillary/validation/images/a.jpg", recorded["mapillary_resize"]["in_jpg"])
    put(tmp_path / "mapillary/validation/v1.2/labels/a.png", palette(recorded["mapillary_resize"]["in_lab"]))
    for step in ("mapillary", "mapillary-half"):
        check = check_data("mapillary", tmp_path)[0]
        assert [c.split()[:3] for c in check.next] == [["causal-tune", "prepare", step]]
        prepare(step, tmp_path)
    check = check_data("mapillary", tmp_path)[0]
    assert not check.next and check.parts[1].pairs == 1 and check.parts[1].sizes == {(20, 15): 1}


# --- ACDC's server --------------------------------------------------------------------------------------------------

class Model:
    "Predicts each image's brightness, and stops at a given image."
    num_classes = 19
    def __init__(self, stop_after=None, weight=0.):
        import torch
        self.seen, self.stop_after, self.weights = [], stop_after, {"w": torch.tensor(weight)}
    def state_dict(self): return self.weights
    def predict(self, image, size=None, window=None, stride=None, name=None):
        if self.stop_after == len(self.seen): raise KeyboardInterrupt
        self.seen.append(name)
        return image[..., 0] % 19


@pytest.fixture
def acdc(tmp_path):
    for d in ("fog", "night", "rain", "snow"):
        for i in range(2):
            put(tmp_path / f"acdc/rgb_anon/{d}/test/GOPR{d}/GOPR{d}_frame_00000{i}_rgb_anon.png", photo(12, 8))
    return tmp_path


def test_acdc_submission(acdc):
    from causal_tune.published.submission import acdc_submission
    out, first, second = acdc / "made/upload.zip", Model(stop_after=3), Model()
    with pytest.raises(KeyboardInterrupt): acdc_submission(first, out, acdc)
    assert not out.exists() and acdc_submission(second, out, acdc) == out and len(second.seen) == 5
    with zipfile.ZipFile(out) as archive:
        assert len(archive.namelist()) == 8
        for path in acdc.glob("acdc/rgb_anon/*/test/*/*.png"):
            made = Image.open(archive.open(f"labelTrainIds/{path.name}"))
            assert made.mode == "L" and (np.asarray(made) == np.asarray(Image.open(path))[..., 0] % 19).all()
    with pytest.raises(ValueError, match="another model"): acdc_submission(Model(weight=1.), out, acdc)
    with pytest.raises(ValueError, match="another model"): acdc_submission(Model(), out, acdc, window=8)


def test_acdc_submission_of_the_wrong_model_or_an_incomplete_data_set(acdc):
    from causal_tune.data.labels import CITYSCAPES, own_space
    from causal_tune.published.submission import acdc_submission
    model, out = Model(), acdc / "upload.zip"
    for model.num_classes, model.space in ((11, own_space([f"class {i}" for i in range(11)])), (19, own_space([f"class {i}" for i in range(19)]))):
        with pytest.raises(ValueError, match=f"19 classes of Cityscapes, this model {model.num_classes} of own"): acdc_submission(model, out, acdc)
    model.space = CITYSCAPES
    for path in acdc.glob("acdc/rgb_anon/rain/test/*/*.png"): path.unlink()
    with pytest.raises(FileNotFoundError, match="rain/test holds no files"): acdc_submission(model, out, acdc)
    shutil.rmtree(acdc / "acdc/rgb_anon/rain")
    with pytest.raises(FileNotFoundError, match="expected the folder .*rain/test"): acdc_submission(model, out, acdc)
    assert model.seen == [] and not out.exists()


def test_acdc_submission_goes_on_after_a_bad_image(acdc):
    from causal_tune.published.submission import acdc_submission
    from causal_tune.data.images import PartialFailure
    bad, *rest = sorted(acdc.glob("acdc/rgb_anon/*/test/*/*.png"))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:40])
    model, out = Model(), acdc / "upload.zip"
    with pytest.raises(PartialFailure, match=f"1 of 8 files could not be predicted, the others are done:\n.*{bad.name}"):
        acdc_submission(model, out, acdc)
    assert len(model.seen) == 7 and not out.exists(), "an archive that lacks an image would count as wrong everywhere"
    bad.write_bytes(whole)
    assert acdc_submission(model, out, acdc) == out and len(model.seen) == 8
    with zipfile.ZipFile(out) as archive: assert len(archive.namelist()) == 8
    put(rest[-1].with_name(bad.name), photo(12, 8))
    with pytest.raises(ValueError, match="share a name"): acdc_submission(model, out, acdc)
