"""Commands and Python of the READMEs, and of the tutorials' text, as they stand: in an empty folder, on small data in the official layouts.

Commands are read from the pages, so that a page with a command that does not run fails.
"""
import json, re, shlex
from dataclasses import replace
import numpy as np
import pytest
import torch
import causal_tune  # noqa: F401  # before timm: repairs torchvision beside a CPU-only torch
from timm.models import VisionTransformer, build_model_with_cfg, register_model
from conftest import ROOT
from test_cli import paint

PAGES = ("README.md", "docs/command_line.md", "data/README.md", "checkpoints/README.md", "docs/coming_from.md")
TUTORIALS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "nbs" / "tutorials").glob("*.ipynb")
                   if path.stem != "cluster") # whose commands want several machines
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)

MAKES = "builds .venv from the network; CI runs make test, make test-long and make docs, and what make demo and make lab call is tested in test_cli"
HOURS = "trains a hundred models, for hours; test_quality runs a small one"
CANNOT = {  # line of a page -> why it does not run here
    "git clone https://github.com/causal-tune/causal_tune": "needs the network", "cd causal_tune": "needs the clone",
    "pip install .": "tests/dist.py installs the wheel",
    "make demo": MAKES, "make lab": MAKES, "make check": MAKES, "make test": MAKES, "make test-long": MAKES, "make docs": MAKES,
    "causal-tune bench-quality toyscapes": HOURS,
    "causal-tune bench-quality camvid --root data": HOURS,
    "causal-tune bench-quality toyscapes --backbone dinov2_s --iterations 10000": HOURS,
    "causal-tune bench-quality driving --root data": HOURS,
    "print(suggest_band(ct.create_backbone(\"toy_vit\"), source))": "probes 48 frames under seven changes, for minutes; chapter suggest runs a small one",
}
# Beyond that, three things are smaller than the pages say: every recipe makes two steps of two images with a small head, and reports on
# one target; every DINOv2 is `stand_in` with random weights; JupyterLab is asked for, but not started.
FEWER = dict(iterations=2, batch_size=2, accumulate=1, workers=0, eval_every=0, precision="no")
HEAD = "mask2former:width=32,encoder_layers=1,decoder_layers=1,encoder_hidden=32,decoder_hidden=32"
ORIGINAL = "vit_large_patch14_dinov2.lvd142m" # DINOv2's ViT-L by timm's name


def text_of(page: str) -> str: # of a notebook, its prose
    text = (ROOT / page).read_text(encoding="utf-8")
    if not page.endswith(".ipynb"): return text
    return "\n\n".join("".join(c["source"]) for c in json.loads(text)["cells"] if c["cell_type"] == "markdown")


def snippets(page: str, language: str) -> list[str]:
    return [body for name, body in FENCE.findall(text_of(page)) if name == language]


def commands(page: str) -> list[str]: # without comments, continued lines as one
    lines = "".join(snippets(page, "bash")).replace("\\\n", " ").splitlines()
    plain = [re.sub(r"\s+#.*", "", line).strip() for line in lines]
    return [line for line in plain if line and not line.startswith("#")]


@register_model
def stand_in(pretrained=False, **options) -> VisionTransformer:
    "A small stand-in for DINOv2."
    small = dict(img_size=518, patch_size=14, embed_dim=32, depth=8, num_heads=4, init_values=1e-5, num_classes=0)
    return build_model_with_cfg(VisionTransformer, "stand_in", False, **(small | options))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A folder with the files that the pages use: data, photos, weights, a published checkpoint, a photograph."
    from causal_tune.published.checkpoints import published_state
    from causal_tune.models.segmentor import create_segmentor
    here = tmp_path_factory.mktemp("world")
    for split, drives in dict(train=("0006R0", "0001TP"), val=("0016E5",), test=("Seq05VD", "0001TP")).items():
        for drive in drives:
            for i in range(2):
                paint(here / f"data/camvid/{split}/{drive}_f0{len(split)}{i}.png")
                paint(here / f"data/camvid/{split}annot/{drive}_f0{len(split)}{i}.png", ids=[0, 3, 8, 11])
    for split in ("train", "val"):
        paint(here / f"data/cityscapes/leftImg8bit/{split}/town/a_leftImg8bit.png")
        outline = dict(label="road", polygon=[[0, 0], [95, 0], [95, 63]])
        polygons = here / f"data/cityscapes/gtFine/{split}/town/a_gtFine_polygons.json"
        polygons.parent.mkdir(parents=True)
        polygons.write_text(json.dumps(dict(imgWidth=96, imgHeight=64, objects=[outline])))
    for d in ("fog", "night", "rain", "snow"):
        for split in ("train", "val", "test"):
            frame = f"{d}/{split}/town/{d}_{split}"
            paint(here / f"data/acdc/rgb_anon/{frame}_rgb_anon.png")
            if split != "test": paint(here / f"data/acdc/gt/{frame}_gt_labelTrainIds.png", ids=[0, 8, 10, 255])
    for d in ("fog", "night"): paint(here / f"photos/{d}/a.jpg")
    paint(here / "street.jpg", (100, 80))
    torch.manual_seed(0)
    (here / "checkpoints").mkdir()
    original = stand_in().state_dict()
    torch.save(original | dict(mask_token=torch.zeros(1, 32)), here / "checkpoints/dinov2_vitl14_pretrain.pth")
    torch.save(original, here / "checkpoints/stand_in.pth")
    there = stand_in(img_size=512, patch_size=16, dynamic_img_size=True)
    published = create_segmentor(there, "causal_tune:variant=released,num_tokens=8,rank=2", HEAD, query_dim=32)
    torch.save(dict(state_dict=published_state(published)), here / "iter_40000.pth")
    return here


@pytest.fixture
def smaller(world, monkeypatch):
    "In that folder, with the recipes and models above."
    from causal_tune.models import pretrained
    from causal_tune.cli import commands as other_commands
    from causal_tune.lab import launch
    from causal_tune.cli import entry as train_commands
    from causal_tune.training import recipe as recipes
    asked = recipes.get_recipe
    def fewer(name, /, **overrides):
        recipe = replace(asked(name, **overrides), **FEWER)
        head = HEAD if recipe.head == "mask2former" else "linear"
        return replace(recipe, head=head, targets=recipe.targets[:1])
    for module in (other_commands, train_commands, recipes): monkeypatch.setattr(module, "get_recipe", fewer)
    for name in ("dinov2_s", "dinov2_l", ORIGINAL): monkeypatch.setitem(pretrained.PRESETS, name, ("stand_in", pretrained.PATCH_16))
    opened = []
    monkeypatch.setattr(launch, "launch_lab", lambda notebook, browser=True, words=(): opened.append([str(w) for w in launch.jupyter_command(notebook, words)]))
    monkeypatch.delenv("CAUSAL_TUNE_DATA", raising=False)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.chdir(world)
    return opened


def run(line, capsys):
    from causal_tune.cli import main
    name, *words = shlex.split(line)
    assert name == "causal-tune", f"{line}: only this command is known here"
    assert main(words) == 0, f"{line}\n{capsys.readouterr().err}"


def test_commands(smaller, world, capsys):
    "Page by page, in their order; some rest on files of those before."
    done = []
    for page in [*PAGES, *TUTORIALS]:
        for line in commands(page):
            if line in CANNOT or line in done: continue
            run(line, capsys)
            done.append(line)
    assert len(done) >= 18
    assert any("jupyterlab" in words for words in smaller)
    made = ("lab.html", "acdc_test.zip", "predictions/street_trainIds.png", "checkpoints/dinov2_converted_1024x1024.pth", "scores.jsonl",
            "runs/camvid_day2dusk-causal_tune-42/model.onnx", "data/cityscapes/gtFine/val/town/a_gtFine_labelTrainIds.png")
    assert not [name for name in made if not (world / name).exists()]


def own_items(n):
    rng = np.random.default_rng(n)
    return [(rng.integers(0, 255, (96, 128, 3), np.uint8), rng.integers(0, 3, (96, 128)).astype(np.uint8)) for _ in range(n)]


def given() -> dict: # names that snippets use and do not make
    import causal_tune as ct
    return dict(a=ct.create_backbone("toy_vit"), b=ct.create_backbone("toy_vit", pretrained=False), images={"fog": "photos/fog"},
                features=torch.randn(1, 8, 6, 8), dataset=own_items(4), other=own_items(2))


@pytest.mark.parametrize("page", [page for page in (*PAGES, *TUTORIALS) if snippets(page, "python")])
def test_python(page, smaller, world):
    "All snippets of a page, one after the other."
    if not (world / "checkpoints/dinov2_converted.pth").exists():
        from causal_tune.published.checkpoints import convert_backbone
        convert_backbone("checkpoints/dinov2_vitl14_pretrain.pth", "checkpoints/dinov2_converted.pth")
    names = given()
    for body in snippets(page, "python"):
        lines = [line for line in body.splitlines() if re.sub(r"\s+#.*", "", line) not in CANNOT]
        exec(compile("\n".join(lines), page, "exec"), names)
    if page == "README.md":
        assert names["labels"].shape == (80, 100) and torch.allclose(sum([names["kept"], names["removed"]]), names["features"], atol=1e-5)
        assert [row["domain"] for row in names["rows"]] == ["night"] and (world / "mine/README.md").exists()
    if page == "checkpoints/README.md": assert names["segmentor"].window == (512, 512)


def test_every_fence_says_its_language():
    "Otherwise its commands would not be tested; only a tree and a chart have none."
    bare = {page: re.findall(r"^```\n(.*?)^```$", re.sub(FENCE, "", text_of(page)), re.M | re.S) for page in (*PAGES, *TUTORIALS)}
    assert not [(page, body) for page, some in bare.items() for body in some if "causal-tune" in body or "import" in body]


def test_what_cannot_run_is_on_a_page():
    shown = {re.sub(r"\s+#.*", "", line).strip() for page in (*PAGES, *TUTORIALS) for line in text_of(page).splitlines()}
    assert not CANNOT.keys() - shown
