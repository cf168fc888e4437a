"""Any file with an image's name: the right pixels, or a one-line error that names the file."""
import io, json, os, random, struct, zlib
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from causal_tune.data.images import MEAN_COLOR, open_image, read_image
from causal_tune.data.masks import read_label

RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)


def file_of(picture, kind, **options):
    "The bytes of a file."
    picture.save(memory := io.BytesIO(), kind, **options)
    return memory.getvalue()


def oriented(value):
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def chunk(kind, content): # of a PNG
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, bits, colour, rows):
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def huge(width, height): return png(width, height, 8, 2, b"") # a few bytes that say they are a large picture


def broken(): # a PNG whose pixels stop half way, at something that is no chunk
    whole = file_of(Image.fromarray(PHOTO), "PNG")
    packed = whole[whole.index(b"IDAT") + 4:-16]
    return whole[:33] + chunk(b"IDAT", packed[:len(packed) // 2]) + b"\0\0\0\1\0\0\0\0\0\0\0\0\0"


BROKEN = broken()


def call(*words):
    from causal_tune.cli import main
    return main([str(word) for word in words])


# --- the right pixels -----------------------------------------------------------------------------------------------

def test_grey_of_16_bits_is_scaled(tmp_path):
    deep = np.array([[0, 257, 256 * 100, 40000, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        path = tmp_path / f"deep.{kind.lower()}"
        path.write_bytes(file_of(Image.fromarray(deep), kind))
        assert read_image(path)[0, :, 0].tolist() == [round(x / 257) for x in deep[0].tolist()], kind
        assert (read_label(path) == deep).all(), "ids are not scaled"


def test_every_orientation(tmp_path):
    "As the standard defines it: which corner of the stored pixels is up and left."
    path = tmp_path / "photo.png"
    turned = {1: PHOTO, 2: PHOTO[:, ::-1], 3: PHOTO[::-1, ::-1], 4: PHOTO[::-1], 5: PHOTO.transpose(1, 0, 2),
              6: PHOTO[::-1].transpose(1, 0, 2), 7: PHOTO[::-1, ::-1].transpose(1, 0, 2), 8: PHOTO[:, ::-1].transpose(1, 0, 2)}
    for value, wanted in turned.items():
        path.write_bytes(file_of(Image.fromarray(PHOTO), "PNG", exif=oriented(value)))
        assert (read_image(path) == wanted).all() and (read_image(Image.open(path)) == wanted).all(), value


def test_what_is_transparent_shows_one_colour():
    ink = np.full((2, 2, 4), 30, np.uint8)
    ink[..., 3] = [[255, 0], [128, 255]]
    rgba = Image.fromarray(ink)
    greys = Image.merge("PA", rgba.convert("LA").split())
    greys.putpalette([value for value in range(256) for _ in "rgb"])
    for picture in (rgba, rgba.convert("LA"), greys):
        found = read_image(picture)
        assert (found[0, 0] == 30).all() and found[0, 1].tolist() == list(MEAN_COLOR), picture.mode
        assert 30 < found[1, 0].min() < max(MEAN_COLOR)
    grey = Image.fromarray(np.array([[5, 9]], np.uint8))
    for picture in (grey, grey.convert("P"), grey.convert("RGB")): # one value is declared transparent
        declared = (9, 9, 9) if picture.mode == "RGB" else 9
        stored = Image.open(io.BytesIO(file_of(picture, "PNG", transparency=declared)))
        assert read_image(stored).tolist() == [[[5] * 3, list(MEAN_COLOR)]], picture.mode


def test_small_and_odd_arrays():
    assert read_image(np.zeros((1, 1), np.uint8)).shape == (1, 1, 3)
    for view in (PHOTO[::2, ::-3], PHOTO[..., ::-1], np.asfortranarray(PHOTO), np.broadcast_to(PHOTO[:1], (5, 16, 3))):
        assert (read_image(view) == view).all()
    for kind in (bool, np.int8, np.uint16, np.int64, np.float16, np.float32, complex):
        with pytest.raises(ValueError, match="of uint8"): read_image(PHOTO.astype(kind))


# --- damaged files --------------------------------------------------------------------------------------------------

CORPUS = {
    "a.png": file_of(Image.fromarray(PHOTO), "PNG", exif=oriented(6)), "a.jpg": file_of(Image.fromarray(PHOTO), "JPEG", exif=oriented(3)),
    "a.bmp": file_of(Image.fromarray(PHOTO), "BMP"), "a.webp": file_of(Image.fromarray(PHOTO), "WEBP"),
    "a.tif": file_of(Image.fromarray(PHOTO), "TIFF", compression="tiff_lzw"), "a.ppm": file_of(Image.fromarray(PHOTO), "PPM"),
    "deep.png": file_of(Image.fromarray(PHOTO[..., 0].astype(np.uint16) * 200), "PNG"),
    "palette.png": file_of(Image.fromarray(PHOTO).quantize(9), "PNG"), "alpha.png": file_of(Image.fromarray(PHOTO).convert("RGBA"), "PNG"),
    "a.gif": file_of(Image.fromarray(PHOTO), "GIF")}


def damaged(content, draw):
    "Bytes of a file with some of them changed, left out or added."
    content = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(content))
        how = draw.randrange(4)
        if how == 0: content[at] = draw.randrange(256)
        elif how == 1: del content[at:at + draw.randint(1, 40)]
        elif how == 2: content[at:at] = draw.randbytes(draw.randint(1, 8))
        else: content[at:at + 4] = struct.pack(">i", draw.choice([-1, 0, 1, 2 ** 31 - 1, 70000]))
        if not content: break
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_give_pixels_or_one_clear_line(tmp_path):
    draw = random.Random(0)
    held = 0
    for i in range(600):
        name = draw.choice(list(CORPUS))
        path = tmp_path / name
        path.write_bytes(damaged(CORPUS[name], draw))
        for read in (read_image, read_label):
            try: assert read(path).dtype.kind in "iu"
            except (OSError, ValueError) as err:
                assert name in str(err) and "\n" not in str(err), err
                held += 1
    assert held > 200, "the damage is worth its name"


def test_errors_fit_their_cause(tmp_path):
    for name, content, said in [
        ("empty.png", b"", "cannot read"), ("text.png", b"not an image", "cannot read"), ("bomb.png", huge(60_000, 60_000), "too large"),
    ("broken.png", BROKEN, "SyntaxError"), ("half.jpg", CORPUS["a.jpg"][:-200], "is the file complete")]:
        (tmp_path / name).write_bytes(content)
        for read in (read_image, read_label):
            with pytest.raises(OSError, match=f"{name}.*{said}|{said}.*{name}"): read(tmp_path / name)


@pytest.mark.filterwarnings("ignore")
def test_a_large_picture_is_read(tmp_path, monkeypatch):
    "Between Pillow's limit and twice of it, Pillow warns."
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    (tmp_path / "large.png").write_bytes(CORPUS["a.png"])
    assert read_image(tmp_path / "large.png").shape == (16, 12, 3)


def test_names_with_line_breaks_stay_one_line(tmp_path):
    path = tmp_path / "two\nlines'\".png"
    with pytest.raises(FileNotFoundError) as error: read_image(path)
    assert "\n" not in str(error.value) and "two\\nlines" in str(error.value)
    path.write_bytes(b"torn")
    with pytest.raises(OSError) as error: read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="whoever may read everything cannot be refused")
def test_a_file_that_may_not_be_read(tmp_path):
    (tmp_path / "secret.png").write_bytes(CORPUS["a.png"])
    (tmp_path / "secret.png").chmod(0)
    with pytest.raises(OSError, match="secret.png may not be read"): read_image(tmp_path / "secret.png")


# --- labels ---------------------------------------------------------------------------------------------------------

def pair(root, image, label, stem="0006R0_1", end=".png"):
    "A frame of CamVid with its label; returns the item."
    from causal_tune.data.datasets import load_dataset
    for folder, picture, ending in (("train", image, end), ("trainannot", label, ".png")):
        (root / "camvid" / folder).mkdir(parents=True, exist_ok=True)
        picture.save(root / "camvid" / folder / (stem + ending))
    return load_dataset("camvid:split=train,domain=day", root=root)[0]


def numbered(ids, order):
    "Ids as a palette image of CamVid's colours, numbered in some order."
    from causal_tune.data.labels import CAMVID
    colours = [*CAMVID.palette.tolist(), [0, 0, 0]]
    picture = Image.fromarray(np.argsort(order)[ids].astype(np.uint8))
    picture.putpalette([x for i in order for x in colours[i]])
    return picture


def test_palette_labels_are_read_by_their_colours(tmp_path):
    ids = np.arange(12).reshape(3, 4)
    wanted = np.where(ids == 11, 255, ids)
    image = Image.fromarray(PHOTO[:3, :4])
    for order in (np.arange(12), np.arange(12)[::-1], RNG.permutation(12)):
        assert (pair(tmp_path, image, numbered(ids, order))["label"].numpy() == wanted).all()
    painted = numbered(ids, np.arange(12)).convert("RGB")
    for tool in (painted.quantize(12), painted.convert("P", palette=Image.Palette.ADAPTIVE)): # whatever order they choose
        assert (pair(tmp_path, image, tool)["label"].numpy() == wanted).all()
    for table in ([i for n in range(256) for i in (n, n, n)], VOC): # tables that only count
        counted = Image.fromarray(ids.astype(np.uint8))
        counted.putpalette(table)
        assert (pair(tmp_path, image, counted)["label"].numpy() == wanted).all()


VOC = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128, 128, 128, 128, 128, 64, 0, 0, 192, 0, 0,
       64, 128, 0, 192, 128, 0]


def test_an_unknown_palette_is_refused(tmp_path):
    from causal_tune.data.converters import check_data
    label = Image.fromarray(np.zeros((12, 16), np.uint8))
    label.putpalette([7, 7, 7])
    with pytest.raises(ValueError, match=r"0006R0_1.png: it shows 0 in \(7, 7, 7\), which is no known colour"):
        pair(tmp_path, Image.fromarray(PHOTO), label)
    assert "(7, 7, 7)" in str(check_data("camvid", tmp_path))


def test_a_turned_photo_needs_a_turned_label(tmp_path):
    stored, turned = Image.new("L", (16, 12), 3), Image.new("L", (12, 16), 3)
    photo = open_image(io_file(tmp_path, CORPUS["a.png"])) # upright: 12 wide, 16 high
    assert pair(tmp_path, photo, turned)["image"].shape == (3, 16, 12)
    raw = tmp_path / "camvid/train/0006R0_1.png"
    raw.write_bytes(CORPUS["a.png"])
    from causal_tune.data.datasets import load_dataset
    assert load_dataset("camvid:split=train", root=tmp_path)[0]["image"].shape == (3, 16, 12)
    stored.save(tmp_path / "camvid/trainannot/0006R0_1.png")
    with pytest.raises(ValueError, match="12 x 16 but its label .* 16 x 12.*orientation"): load_dataset("camvid:split=train", root=tmp_path)[0]


def io_file(folder, content):
    (folder / "stored.png").write_bytes(content)
    return folder / "stored.png"


def test_one_frame_twice_is_trained_on_once(tmp_path, capsys):
    from causal_tune.data.converters import check_data
    from causal_tune.data.datasets import load_dataset
    label = Image.new("L", (16, 12), 3)
    pair(tmp_path, Image.new("RGB", (16, 12), "red"), label, end=".PNG")
    pair(tmp_path, Image.new("RGB", (16, 12), "blue"), label, end=".jpg")
    pair(tmp_path, Image.new("RGB", (16, 12), "blue"), label, "0006R0_2", ".JPEG")
    data = [load_dataset("camvid:split=train", root=tmp_path) for _ in range(3)][0]
    assert [s.name for s in data.samples] == ["0006R0_1", "0006R0_2"]
    assert data[0]["image"][:, 0, 0].tolist() == [255, 0, 0], "the first ending counts"
    assert capsys.readouterr().err.count("left out (0006R0_1.jpg)") == 1
    said = str(check_data("camvid", tmp_path))
    assert "note: " in said and "left out (0006R0_1.jpg)" in said


def test_ids_in_few_bits_are_refused(tmp_path):
    for bits, rows in ((2, b"\0\x10"), (4, b"\0\x01\x20")): # 0 1 0 and 0 1 2
        (tmp_path / "few.png").write_bytes(png(3, 1, bits, 0, rows))
        with pytest.raises(ValueError, match="few.png has 2 or 4 bits a pixel"): read_label(tmp_path / "few.png")
        assert read_image(tmp_path / "few.png")[0, :, 0].tolist() == ([0, 85, 0] if bits == 2 else [0, 17, 34])


# --- many files, one of them bad ------------------------------------------------------------------------------------

@pytest.fixture
def run(tiny, tmp_path, monkeypatch):
    "The checkpoint of a training of two steps."
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert call("train", "demo", *tiny, "--iterations", 2, "--out", tmp_path / "run") == 0
    return tmp_path / "run/checkpoint.pt"


def poisoned(path):
    "A checkpoint whose head has diverged: its numbers are finite, its scores are not."
    content = torch.load(path, weights_only=True)
    for value in content["head"].values():
        if value.is_floating_point(): value.fill_(3e38)
    torch.save(content, path.with_name("poisoned.pt"))
    return path.with_name("poisoned.pt")


def test_predict_lists_what_it_cannot_read(run, capsys, tmp_path):
    for name in ("a", "c"): Image.fromarray(PHOTO).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(BROKEN)
    (tmp_path / "d.png").write_bytes(huge(60_000, 60_000))
    capsys.readouterr()
    assert call("predict", run, *(tmp_path / f"{name}.png" for name in "abcdf"), "--out", tmp_path / "out") == 1
    said = capsys.readouterr()
    _, _, listed = said.err.partition("3 of 5 files could not be predicted, the others are done:\n")
    assert len(listed.splitlines()) == 3 and all(f"{name}.png" in listed for name in "bdf") and "2 predictions" in said.out
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"{n}_{what}.png" for n in "ac" for what in ("trainIds", "overview", "overlay")}


def test_scores_that_are_no_numbers_end_predict_eval_and_export(run, capsys, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    assert call("predict", poisoned(run), tmp_path / "a.png", "--out", tmp_path / "none") == 2
    assert "a.png: 192 of 192 pixels have no class" in capsys.readouterr().err and not list((tmp_path / "none").iterdir())
    assert call("eval", run.with_name("poisoned.pt")) == 2
    said = capsys.readouterr()
    assert "have no class" in said.err and "mIoU" not in said.out
    assert call("lab", "--checkpoint", run.with_name("poisoned.pt"), "--n", 1, "--export", tmp_path / "lab.html") == 2
    said = capsys.readouterr().err
    assert ", image 1: " in said and "have no class" in said and not (tmp_path / "lab.html").exists()


def test_a_lab_leaves_out_what_it_cannot_read(tmp_path, weights):
    from causal_tune.lab.launch import open_lab
    for domain in ("day", "night"):
        (tmp_path / domain).mkdir()
        for i in range(2): Image.fromarray(RNG.integers(0, 256, (32, 48, 3), dtype=np.uint8)).save(tmp_path / domain / f"{i}.png")
    (tmp_path / "night/broken.png").write_bytes(BROKEN)
    (tmp_path / "night/bomb.png").write_bytes(huge(60_000, 60_000))
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "night/depth.tif")
    lab = open_lab(tmp_path, weights=str(weights), size=(32, 48))
    try:
        assert {d: len(x) for d, x in lab.data.images.items()} == dict(day=2, night=2)
        notes = " ".join(lab.data.notes)
        assert all(name in notes for name in ("broken.png", "bomb.png", "depth.tif"))
    finally: lab.close()


def test_prepare_lists_what_it_cannot_convert(capsys, tmp_path):
    town = tmp_path / "cityscapes/gtFine/train/town"
    town.mkdir(parents=True)
    good = dict(imgWidth=8, imgHeight=4, objects=[dict(label="road", polygon=[[0, 0], [7, 0], [7, 3]])])
    nan = json.dumps(good).replace("[7, 0]", "[NaN, 0]")
    contents = dict(good=json.dumps(good), nan=nan, deep="[" * 200_000, null="null", wide=json.dumps(good | dict(imgWidth=10 ** 12)),
                    camel=json.dumps(good | dict(objects=[dict(label="camel", polygon=[[0, 0], [1, 1]])])), binary="\0\1")
    for name, content in contents.items(): (town / f"{name}_gtFine_polygons.json").write_text(content)
    assert call("prepare", "cityscapes", "--root", tmp_path) == 1
    listed = capsys.readouterr().err.partition("6 of 7 files could not be converted, the others are done:")[2].strip().splitlines()
    assert len(listed) == 6 and all(sum(f"{name}_gtFine" in line for line in listed) == 1 for name in contents if name != "good")
    assert [p.name for p in town.glob("*.png")] == ["good_gtFine_labelTrainIds.png"]


def test_check_data_says_by_its_status_whether_all_is_well(tmp_path, capsys):
    def check(*words): return call("check-data", *words, "--root", tmp_path)
    assert check() == check("camvid") == 1, "nothing is there"
    image, label = Image.fromarray(PHOTO), Image.new("L", (16, 12), 3)
    for folder in ("train", "val", "test"):
        for stem in ("0006R0_1", "0001TP_1"):
            for place, picture in ((folder, image), (f"{folder}annot", label)):
                (tmp_path / "camvid" / place).mkdir(parents=True, exist_ok=True)
                picture.save(tmp_path / "camvid" / place / f"{stem}.png")
    assert check("camvid") == check() == 0, capsys.readouterr().out
    assert check("gta") == 1
    (tmp_path / "camvid/val/0006R0_1.png").write_bytes(b"torn")
    assert check("camvid") == check() == 1
    assert "problem: " in capsys.readouterr().out


# --- the real frames ------------------------------------------------------------------------------------------------

DATA = os.environ.get("CAUSAL_TUNE_DATA")


@pytest.mark.skipif(not DATA or not (Path(DATA) / "camvid").is_dir(), reason="CAUSAL_TUNE_DATA names no folder that holds camvid")
def test_real_frames_are_what_they_were():
    for path in sorted((Path(DATA) / "camvid/train").iterdir())[::60]:
        assert (read_image(path) == np.asarray(Image.open(path).convert("RGB"))).all()
        label = path.parent.with_name("trainannot") / f"{path.stem}.png"
        assert (read_label(label) == np.asarray(Image.open(label))).all()
