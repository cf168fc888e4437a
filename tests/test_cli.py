"""The command line: output, errors, and that an interruption does not change results."""
import csv, os, re, signal, subprocess, sys
from functools import partial
from pathlib import Path
from threading import Timer
import numpy as np
import pytest
import torch
from PIL import Image
from conftest import ENV, command, trained
from forks import fork

def test_help_and_version_import_no_model():
    "Help of the command line and of every command comes at once: neither torch nor numpy is imported. A bare command prints the help."
    code = """if True:
        import sys
        from causal_tune.cli import main
        from causal_tune.cli.entry import COMMANDS
        assert main([]) == main(["--version"]) == main(["recipes"]) == 0
        for name in COMMANDS.names(): assert main([name, "--help"]) == 0, name
        assert not {'torch', 'numpy', 'cv2', 'pandas'} & set(sys.modules), list(sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], env=ENV, timeout=60, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("train", "eval", "predict", "lab", "convert-backbone", "compare-weights", "doctor"):
        assert f"usage: causal-tune {name} " in done.stdout and re.search(rf"^    {name}\s", done.stdout, re.M), name


def test_help_of_train_lists_every_field(monkeypatch, capsys):
    "In its group, with its description, default and choices."
    from dataclasses import fields
    from causal_tune.cli import main
    from causal_tune.training.recipe import Recipe
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "--help"]) == 0
    _, *groups = re.split(r"^recipe: (\w+):$", capsys.readouterr().out, flags=re.M)
    listed = {group: " ".join(text.split()) for group, text in zip(groups[::2], groups[1::2])}
    for f in fields(Recipe): assert f"--{f.name} " in listed[f.metadata["group"]] and f.metadata["help"] in listed[f.metadata["group"]], f.name
    assert "one of no, bf16, fp16; default: no" in listed["training"] and "1e-12 to 1000; default: 0.0001" in listed["training"]


def test_completion(cli):
    "A script that completes commands and recipe fields, where shtab is installed."
    pytest.importorskip("shtab", reason="shtab is not installed")
    done = cli("--print-completion", "bash")
    assert done.returncode == 0 and all(word in done.stdout for word in ("convert-backbone", "--eval_size")), done.stderr


def test_wrong_input_shows_no_traceback(cli):
    done = cli("train", "demo", "--iteratoins", "5")
    assert done.returncode == 2 and "'iterations'" in done.stderr and "Traceback" not in done.stderr


LINES = """
train demoo | Did you mean 'demo'?
train nothing-like-it | Allowed: demo,
trian demo | Did you mean 'train'?
train demo lr 1 | options are written --field value
train demo --adapter causal_tun --weights WEIGHTS | 'causal_tune'
train demo --train toyscape:n=4 | 'toyscapes'
train demo --weights nowhere.safetensors | nowhere.safetensors
train camvid_day2dusk --root nowhere | nowhere
train nowhere.yaml | nowhere.yaml
train demo --attention xformer | 'xformers'
train demo --name ../../x | name=
train demo --name | --name: expected 1 argument
train demo --lr fast | lr='fast'
train demo --lr nan | lr=nan
train demo --lr 0 | give one from 1e-12
train demo --seed=-1 | seed=-1
train demo --batch_size 1000000 | batch_size=
train demo --crop 1000000000 1000000000 | crop=
train demo --crop 96 | crop=(96,)
train demo --scale 2 1 | scale=
train demo --window 64x64 --stride 65x64 | stride=
train demo --cat_max_ratio inf | cat_max_ratio=inf
train demo --color 2 | on or off
train demo --adapter rein:rank= | key=value
train demo --adapter causal_tune --band dog:low=.2,low=.3 | twice
train demo --head dpt:width=1.5 | width=1.5
train demo --style spurious:p=2 | p=2
train demo --precision fp16 | needs a GPU
train demo --backbone hf-hub:somebody/model | Unknown backbone
demo --seeds 0 | --seeds
bench-quality --jobs=-3 | --jobs
lab --export lab.html --sizes 96x128 | '--size'
lab --n=-1 --export x.html | --n
lab --size 0x0 --export x.html | eval_size=
recipes --all | 'all'
eval | MODEL
eval missing.pt | missing.pt
eval missing.pt --backbone b.pth | --backbone belongs to a published checkpoint
eval c2acdc_512 | RECIPE FILE.pth
eval c2acdc_521 iter_40000.pth | 'c2acdc_512'
eval c2acdc_512 iter_40000.pth | iter_40000.pth
eval c2acdc_512 iter_40000.pth --lr 1 | fixed by training
eval c2acdc_512 x.pth --window 0x0 | window=
predict missing.pt image.png | missing.pt
predict x.pt | IMAGE
predict-acdc missing.pt | missing.pt
convert-backbone missing.pth out.pth --height 512 --width 512 | missing.pth
convert-backbone a b --height 512 | --width
convert-backbone a b --height 512 --width 1000000 | --width
compare-weights missing.pth other.pth | missing.pth
prepare gta --root nowhere | nowhere
prepare gta --worker 2 | --workers
"""

def test_wrong_input_is_one_line(weights, tmp_path, monkeypatch, capfd):
    "An error names the given or the allowed values; nothing is written. All lines that fail are listed."
    from causal_tune.cli import main
    monkeypatch.chdir(tmp_path)
    failed = []
    for line, expected in (line.split(" | ") for line in LINES.strip().splitlines()):
        if "needs a GPU" in expected and torch.cuda.is_available(): continue
        status = main([str(weights) if word == "WEIGHTS" else word for word in line.split()])
        said = capfd.readouterr().err
        if status != 2 or said.count("\n") != 1 or not said.startswith("causal-tune: ") or expected not in said: failed.append((line, status, said))
    assert not failed
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"]


def test_options_are_not_abbreviated():
    "`demo --seed 7` is the recipe's seed, not `--seeds 7`."
    from causal_tune.cli.entry import parse
    args = parse(["demo", "--seed", "7"])
    assert args.changes == dict(seed=7) and args.seeds == 3


@pytest.fixture(scope="module")
def run(tmp_path_factory, weights):
    "A finished run of one iteration."
    out = tmp_path_factory.mktemp("run")
    words = ["train", "demo", "--out", out, "--weights", weights, "--iterations", "1", "--batch_size", "2",
             "--crop", "32x48", "--train", "toyscapes:domain=clear,split=train,n=4",
             "--targets", "toyscapes:domain=fog,split=test,n=1", "--lr", "2e-4", "--adapter", "causal_tune"]
    done = command(words, out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_train_overrides_fields(run):
    content = torch.load(run[0] / "checkpoint.pt", weights_only=True)
    assert content["recipe"]["lr"] == 2e-4 and content["recipe"]["adapter"] == "causal_tune"
    assert "fog" in run[1].stdout and "mIoU" in run[1].stdout


def test_eval_takes_other_targets(run, cli):
    done = cli("eval", run[0] / "checkpoint.pt", "--targets", "toyscapes:domain=night,split=test,n=1",
               "toyscapes:domain=snow,split=test,n=1")
    assert done.returncode == 0, done.stderr
    assert "night" in done.stdout and "snow" in done.stdout and "mean" in done.stdout


def test_predict_writes_labels_of_the_images_size(run, cli, tmp_path):
    size = 70, 51  # width, height; neither is a multiple of the patch
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(tmp_path / name)
    done = cli("predict", run[0] / "checkpoint.pt", tmp_path / "a.png", tmp_path / "b.jpg", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for stem in "ab":
        labels = [np.asarray(im) for p in (tmp_path / "out").glob(f"{stem}*.png") if (im := Image.open(p)).mode in "LP"]
        assert len(labels) == 1 and labels[0].shape == size[::-1] and labels[0].max() < 19


def test_predict_a_folder_a_video_and_the_camera(run, tmp_path, capsys, monkeypatch):
    import cv2
    from causal_tune.cli import main
    (tmp_path / "street").mkdir()
    for name in ("a.png", "b.jpg"): Image.new("RGB", (51, 70), "grey").save(tmp_path / "street" / name)
    writer = cv2.VideoWriter(str(tmp_path / "street/drive.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for grey in (0, 200): writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    (tmp_path / "torn.mp4").write_bytes(b"torn")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cv2, "VideoCapture", lambda which, real=cv2.VideoCapture: real(str(which)))  # "0" is no camera here
    assert main(["predict", str(run[0] / "checkpoint.pt"), "street", "torn.mp4", "camera"]) == 1
    said = capsys.readouterr()
    assert re.search(r"^4 predictions in predictions/, [\d.e-]+ s each$", said.out, re.M)
    assert "2 of 5 files could not be predicted" in said.err and "torn.mp4 as a video" in said.err and "No camera 0" in said.err
    made = {path.relative_to("predictions").as_posix() for path in Path("predictions").rglob("*") if path.is_file()}
    assert made == {f"{name}_{what}.png" for name in "ab" for what in ("trainIds", "overview", "overlay")} | {
        "drive_overlay.mp4", "drive_legend.png", "drive_trainIds/000001.png", "drive_trainIds/000002.png"}


def interrupt(words, after):
    "Start a run, press Ctrl-C after so many steps, and return its exit status and messages."
    from causal_tune.cli import main
    mine, its = os.pipe()
    pid = fork(partial(main, list(map(str, words))), Path.cwd(), ENV | dict(TQDM_MININTERVAL="0"), os.open(os.devnull, os.O_WRONLY), its) # the bar shows every step
    os.close(its)
    watchdog = Timer(90, partial(os.kill, pid, signal.SIGKILL))
    watchdog.start()
    with open(mine, "rb") as errors:
        seen = b""
        while piece := errors.read1(4096):
            steps = re.findall(rb"(\d+)/\d+ \[", seen := seen + piece)
            if steps and int(steps[-1]) >= after: break
        os.kill(pid, signal.SIGINT)
        seen += errors.read()
    watchdog.cancel()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is sent as a POSIX signal")
def test_interrupted_and_resumed_equals_uninterrupted(tiny, cli, tmp_path):
    words = ["train", "demo", *tiny, "--adapter", "causal_tune", "--init", "zero", "--lr", "1e-3", "--head", "linear", "--iterations", "20"]
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    assert cli(*words, "--out", whole).returncode == 0
    status, messages = interrupt([*words, "--out", pieces], after=8)
    assert status == 130 and "Traceback" not in messages, messages[-2000:]
    assert (pieces / "resume.pt").exists() and not (pieces / "checkpoint.pt").exists()
    done = cli(*words, "--out", pieces)
    assert done.returncode == 0, done.stderr
    a, b = (trained(f / "checkpoint.pt") for f in (whole, pieces))
    assert a.keys() == b.keys()
    differ = [k for k in a if not torch.equal(a[k], b[k])]
    assert not differ, f"{len(differ)} of {len(a)} tensors differ, such as {differ[:3]}"
    logs = [[(r["iteration"], r["loss"], r["lr"]) for r in csv.DictReader((f / "log.csv").open())]
            for f in (whole, pieces)]
    assert logs[0] == logs[1] and len(logs[0]) == 20


def paint(path, size=(96, 64), ids=None): # width, height
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    Image.fromarray(rng.integers(0, 255, (*size[::-1], 3), dtype=np.uint8) if ids is None
                    else rng.choice(np.uint8(ids), size[::-1])).save(path)


@pytest.fixture
def acdc(tmp_path):
    "A small ACDC: one frame per condition and split."
    for d in ("fog", "night", "rain", "snow"):
        for split in ("train", "val", "test"):
            paint(tmp_path / f"acdc/rgb_anon/{d}/{split}/town/{d}_{split}_rgb_anon.png")
            if split == "test": continue
            paint(tmp_path / f"acdc/gt/{d}/{split}/town/{d}_{split}_gt_labelTrainIds.png", ids=[0, 8, 10, 255])
    return tmp_path


@pytest.fixture
def published(tmp_path, monkeypatch):
    "A small published checkpoint, its backbone and its recipe; and the segmentor they were made from."
    from causal_tune.published.checkpoints import published_state
    from causal_tune.training.recipe import RECIPES, replace
    from causal_tune.models.segmentor import create_segmentor
    torch.manual_seed(0)
    s = create_segmentor("vit_tiny_patch16_224", "causal_tune:variant=released,num_tokens=8,rank=2", "mask2former:width=32,"
                         "encoder_layers=1,decoder_layers=1,encoder_hidden=32,decoder_hidden=32", pretrained=False, img_size=64)
    s.backbone.mean, s.backbone.std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]  # as for DINOv2
    torch.save(dict(state_dict=published_state(s), meta=dict(iter=40000)), tmp_path / "iter_40000.pth")
    torch.save(s.backbone.model.state_dict(), tmp_path / "converted.pth")
    recipe = replace(RECIPES["c2acdc_512"], name="small", backbone="vit_tiny_patch16_224", crop=(64, 64), img_size=(64, 64),
                     window=(64, 64), stride=(43, 43), targets=("acdc:split=val,condition=night,size=64x96",
                                                                "acdc:split=val,condition=fog,size=64x96"))
    monkeypatch.setitem(RECIPES, "small", recipe)
    monkeypatch.chdir(tmp_path)
    return s.eval(), ["small", "iter_40000.pth", "--backbone", "converted.pth"]


def call(*words):
    from causal_tune.cli import main
    return main([str(w) for w in words])


def test_eval_of_a_published_checkpoint(acdc, published, capsys):
    "`eval RECIPE iter_40000.pth --backbone F`, as the published commands have it; each row is kept beside the checkpoint. `predict` likewise."
    import json
    from causal_tune.training.evaluation import evaluate, result_row
    from causal_tune.data.datasets import load_dataset
    segmentor, words = published
    assert call("eval", *words, "--root", acdc) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    data = load_dataset("acdc:split=val,condition=night,size=64x96", acdc, label_size="original")
    row = result_row(evaluate(segmentor, data, window=64, stride=43), data.space.classes)
    assert f"night  mIoU {100 * row['miou']:5.1f} %   aAcc {100 * row['aacc']:5.1f} %" in said
    for field in ("variant=released", "num_tokens=8", "rank=2", "window=[64, 64]", "weights=converted.pth"):
        assert field in said
    assert "mean" in said
    rows = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    assert [row["domain"] for row in rows] == ["night", "fog"] and f"{100 * rows[1]['miou']:5.1f} %" in said
    assert rows[0]["recipe"]["window"] == [64, 64]
    paint(acdc / "street.jpg", (50, 40))
    assert call("predict", *words[:2], "street.jpg", *words[2:], "--out", "seen") == 0, capsys.readouterr().err
    assert Image.open("seen/street_trainIds.png").size == (50, 40), "smaller than the window of 64 pixels"


def test_rows_before_an_error_are_printed_and_kept(run, cli, tmp_path, monkeypatch, capsys):
    from causal_tune.cli import main
    from causal_tune.training import loop as training
    from causal_tune.training.evaluation import evaluate
    def evaluate_once(segmentor, data, *options, **more):
        if data.domain == "snow": raise OSError("the disk is gone")
        return evaluate(segmentor, data, *options, **more)
    monkeypatch.setattr(training, "evaluate", evaluate_once)
    out = tmp_path / "kept.jsonl"
    targets = [f"toyscapes:domain={d},split=test,n=1" for d in ("night", "snow")]
    assert main(["eval", str(run[0] / "checkpoint.pt"), "--out", str(out), "--targets", *targets]) == 2
    said = capsys.readouterr()
    assert "night  mIoU" in said.out and "the disk is gone" in said.err and out.read_text().count("\n") == 1


def test_a_failed_submission_refuses_no_other(acdc, published, capsys):
    words = ["predict-acdc", *published[1], "--root", acdc, "--out", acdc / "test.zip"]
    whole = next(acdc.glob("acdc/rgb_anon/rain/test/*/*.png"))
    content = whole.read_bytes()
    for path in acdc.glob("acdc/rgb_anon/*/test/*/*.png"): path.write_bytes(content[:40])
    assert call(*words) == 1
    for path in acdc.glob("acdc/rgb_anon/*/test/*/*.png"): path.write_bytes(content)
    assert call(*words, "--stride", "32x32") == 0, capsys.readouterr().err


def test_any_image_by_default(acdc, published):
    "Without options for windows or sizes, smaller and larger than the training images."
    import causal_tune as ct
    from causal_tune.published.submission import acdc_submission
    segmentor = ct.segmentor_from_published("iter_40000.pth", num_heads=3, img_size=64, backbone="converted.pth")
    for size in ((36, 48), (75, 101)): assert segmentor.predict(np.zeros((*size, 3), np.uint8)).shape == size
    assert acdc_submission(segmentor, "upload.zip", acdc).exists()


def test_a_missing_conversion_is_told_how_to_make(acdc, published, capsys):
    "The error names the command and the page that has it for each size."
    assert call("eval", "c2acdc_512", "iter_40000.pth", "--backbone", "checkpoints/dinov2_converted.pth") == 2
    assert "`causal-tune convert-backbone` makes converted ones, see checkpoints/README.md" in capsys.readouterr().err
    page = (Path(__file__).parents[1] / "checkpoints/README.md").read_text()
    for size, name in ((512, "dinov2_converted.pth"), (1024, "dinov2_converted_1024x1024.pth")):
        assert f"causal-tune convert-backbone checkpoints/dinov2_vitl14_pretrain.pth checkpoints/{name} --height {size} --width {size}" in page


def test_another_backbone_asks_for_its_own_file(acdc, capsys, monkeypatch, tmp_path):
    from causal_tune.models import pretrained
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pretrained.timm, "create_model", lambda *a, **k: 1 / 0)
    for d in ("train", "val"):
        paint(acdc / f"cityscapes/leftImg8bit/{d}/town/a_leftImg8bit.png")
        paint(acdc / f"cityscapes/gtFine/{d}/town/a_gtFine_labelTrainIds.png", ids=[0, 8])
    assert call("train", "c2acdc_512", "--backbone", "dinov2_s", "--root", acdc, "--out", tmp_path / "run") == 2
    said = capsys.readouterr().err
    assert "vit_small_patch14_dinov2" in said and "dinov2_converted" not in said


def test_a_published_checkpoint_needs_its_backbone(acdc, published, capsys):
    assert call("eval", *published[1][:2], "--root", acdc) == 2
    err = capsys.readouterr().err
    assert "backbone" in err and err.count("\n") == 1


def test_attention_that_cannot_run_is_one_message(acdc, published, capsys):
    if torch.cuda.is_available(): pytest.skip("xformers may run here")
    assert call("eval", *published[1], "--root", acdc, "--attention", "xformers") == 2
    assert "attention='xformers' cannot run here" in capsys.readouterr().err


def test_predictions_for_acdcs_server(acdc, published, capsys):
    import zipfile
    assert call("predict-acdc", *published[1], "--root", acdc, "--out", acdc / "test.zip") == 0, capsys.readouterr().err
    names = zipfile.ZipFile(acdc / "test.zip").namelist()
    assert sorted(names) == [f"labelTrainIds/{d}_test_rgb_anon.png" for d in ("fog", "night", "rain", "snow")]


def test_convert_backbone(tmp_path, capsys):
    from causal_tune.published.checkpoints import read_weights
    state = {"cls_token": torch.randn(1, 1, 8), "pos_embed": torch.randn(1, 1 + 37 * 37, 8), "mask_token": torch.zeros(1, 8),
             "patch_embed.proj.weight": torch.randn(8, 3, 14, 14), "patch_embed.proj.bias": torch.randn(8)}
    torch.save(state, tmp_path / "src.pth")
    out = tmp_path / "new/converted.pth"
    assert call("convert-backbone", tmp_path / "src.pth", out, "--height", 64, "--width", 96) == 0
    found = read_weights(out)
    assert found["pos_embed"].shape == (1, 1 + 4 * 6, 8) and found["patch_embed.proj.weight"].shape[-2:] == (16, 16)
    assert str(out) in capsys.readouterr().out


def test_check_data_says_what_is_there(acdc, capsys):
    assert call("check-data", "acdc", "--root", acdc) == 0
    said = capsys.readouterr().out
    assert "96 x 64 (1)" in said and "fog" in said and "problem" not in said
    assert call("check-data", "--root", acdc) == 0
    assert "gta: not there" in capsys.readouterr().out


def test_prepare_converts_once(tmp_path, capsys):
    import json
    paint(tmp_path / "gta/labels/00001.png", ids=[7, 11, 0])
    outline = dict(label="road", polygon=[[0, 0], [95, 0], [95, 63]])
    town = tmp_path / "cityscapes/gtFine/train/town"
    town.mkdir(parents=True)
    (town / "a_gtFine_polygons.json").write_text(json.dumps(dict(imgWidth=96, imgHeight=64, objects=[outline])))
    paint(tmp_path / "mapillary/validation/images/a.jpg")
    paint(tmp_path / "mapillary/validation/v1.2/labels/a.png", ids=[13, 27, 65])
    for name, made in (("gta", "gta/labels/00001_labelTrainIds.png"),
                       ("mapillary", "mapillary/cityscapes_trainIdLabel/val/label/a.png"),
                       ("cityscapes", "cityscapes/gtFine/train/town/a_gtFine_labelTrainIds.png"),
                       ("mapillary-half", "mapillary/half/val_img/a.jpg")):
        assert call("prepare", name, "--root", tmp_path, "--workers", 1) == 0, capsys.readouterr().err
        said = capsys.readouterr().out
        assert (tmp_path / made).exists() and f"{name}: {2 if 'half' in name else 1} files written, 0 were there" in said
        assert call("prepare", name, "--root", tmp_path) == 0 and "0 files written" in capsys.readouterr().out
