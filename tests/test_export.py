"""Exported files compute what their models compute, and run where torch is not installed.

Adapters whose graphs differ, and each head once; CAUSAL_TUNE_EXPORT_GRID=1 tests all pairs, which takes a while, and with
pytest -rP tells how far each is from its model."""
from concurrent.futures import ThreadPoolExecutor
import os, subprocess, sys
from itertools import product
import numpy as np, pytest

import torch
import causal_tune as ct  # before timm: repairs torchvision
from causal_tune.published.export import EXPORT_REQUIREMENTS, is_missing

missing = [requirement for requirement in EXPORT_REQUIREMENTS if is_missing(requirement)]
if missing: pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

from timm.models.vision_transformer import VisionTransformer
from causal_tune.spectra.bands import BANDS, create_band
from causal_tune.data.labels import CAMVID
from causal_tune.published.export import OnnxSegmentor, export_onnx
from causal_tune.training.recipe import Recipe
from conftest import ENV, ROOT

HEADS = dict(linear="linear", dpt="dpt:width=16",
             mask2former="mask2former:width=32,num_queries=5,encoder_layers=1,decoder_layers=1,encoder_hidden=32,decoder_hidden=32",
             pmt="pmt:num_queries=5,decoder_layers=2")
ADAPTERS = ["none", "rein", "set", "set:variant=released", "fada", *(f"causal_tune:band={band}" for band in BANDS), "causal_tune:residual=replace",
            "causal_tune:variant=released", "lora:rank=4", "soma:rank=4,first_layer=0", "full"]
FEW = [("causal_tune:band=dog", "mask2former"), ("rein", "dpt"), ("causal_tune:residual=replace", "linear"), ("causal_tune:variant=released", "linear"),
       ("set", "linear"), ("set:variant=released", "linear"), ("fada", "linear"), ("lora:rank=4", "linear")] # soma and full are weights alone
PAIRS = list(product(ADAPTERS, HEADS)) if os.environ.get("CAUSAL_TUNE_EXPORT_GRID") == "1" else FEW
RECIPE = Recipe(crop=(40, 40))


def segmentor(adapter, head="linear"):
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=1, num_heads=3, num_classes=0, global_pool="",
                            dynamic_img_size=True)
    options = {}
    if adapter.startswith("causal_tune:band="):
        options = dict(band=create_band(adapter.partition("=")[2]))
        adapter = "causal_tune"
    made = ct.create_segmentor(vit, adapter, HEADS[head], num_classes=len(CAMVID), out_layers=(0, 0, 0, 0), **options).eval()
    for p in made.parameters():  # away from the start, where adapters do nothing
        if p.requires_grad: p.data += .1 * torch.randn_like(p)
    return made


@pytest.mark.parametrize("adapter, head", PAIRS)
def test_same_scores(adapter, head, tmp_path):
    model = segmentor(adapter, head)
    plain = segmentor("none", head)
    before = {name: p.clone() for name, p in model.state_dict().items()}
    export_onnx(model, tmp_path / "model.onnx", CAMVID, RECIPE)
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items()), "exporting changed the model"
    exported = OnnxSegmentor(tmp_path / "model.onnx")
    assert (exported.size is None) == (adapter != "causal_tune:variant=released")
    apart, alike = [], []
    for size in [exported.size] if exported.size else [(40, 56), (61, 83)]:
        for batch in (1, 3):
            images = torch.rand(batch, 3, *size) * 255
            with torch.no_grad(): want = model(model.backbone.standardise(images)).numpy()
            got = exported(images.numpy())
            apart.append(np.abs(got - want).max())
            alike.append((got.argmax(1) == want.argmax(1)).mean())
    print(f"{adapter} with {head}: scores differ by {max(apart):.1e} at most, {min(alike):.4%} of pixels are equal")  # pytest -rP
    assert max(apart) < 1e-3
    assert min(alike) > .999
    with torch.no_grad(): other = plain(plain.backbone.standardise(images)).numpy()
    assert adapter == "none" or np.abs(other - want).max() > 1e-3, "an adapter that does nothing tells nothing"


def test_predictions(tmp_path):
    "Resized or through windows, an exported file gives the labels of its model."
    model = segmentor("rein")
    export_onnx(model, tmp_path / "model.onnx", CAMVID)
    exported = OnnxSegmentor(tmp_path / "model.onnx")
    image = np.random.default_rng(0).integers(0, 256, (90, 131, 3), dtype=np.uint8)
    for options in [{}, dict(size=(48, 64)), dict(size=(48, 64), antialias=False), dict(window=64), dict(size=(100, 100), window=(64, 56), stride=40)]:
        assert (exported.predict(image, **options) == model.predict(image, **options)).mean() > .999
    images = [image[:60 + i, :100 + i] for i in range(24)]
    with ThreadPoolExecutor(6) as pool: together = list(pool.map(exported.predict, images))
    assert all((got == exported.predict(one)).all() for got, one in zip(together, images)), "threads share one session"


@pytest.fixture(scope="module")
def run(tmp_path_factory, weights):
    "A finished run of two steps."
    from causal_tune.training.loop import train
    folder = tmp_path_factory.mktemp("run")
    recipe = Recipe(name="tiny", adapter="none", head="linear", weights=str(weights), train="toyscapes:domain=clear,split=train,n=4",
                    targets=("toyscapes:domain=fog,split=test,n=1",), crop=(40, 48), eval_size=(40, 48), batch_size=2, iterations=2,
                    precision="no")
    train(recipe, folder)
    return folder


WITHOUT_TORCH = """
import sys
ALLOWED = {"onnxruntime", "numpy", "PIL", "cv2", "causal_tune", *sys.stdlib_module_names}
INSTALLED = {"torch", "torchvision", "timm", "fastcore", "einops", "scipy", "pandas", "plotly", "tqdm", "accelerate", "safetensors",
             "segmentation_models_pytorch", "onnx", "onnxscript", "ipywidgets", "anywidget"}
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in INSTALLED - ALLOWED: raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Missing())
from causal_tune.cli import main
status = main(sys.argv[1:])
assert "torch" not in sys.modules
sys.exit(status)
"""


def test_without_torch(run, cli, tmp_path):
    from PIL import Image
    from causal_tune.training.checkpoint import load_checkpoint
    from causal_tune.data.images import fit_size
    done = cli("export", run, "--out", tmp_path / "model.onnx", timeout=400)
    assert done.returncode == 0, done.stderr
    assert "100.0 % of pixels" in done.stdout
    image = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    Image.fromarray(image).save(tmp_path / "street.png")
    words = ["predict", tmp_path / "model.onnx", tmp_path / "street.png", "--out", tmp_path / "out"]
    alone = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *map(str, words)], env=ENV | dict(PYTHONPATH=str(ROOT)),
                           cwd=tmp_path, capture_output=True, text=True, timeout=90)
    assert alone.returncode == 0, alone.stderr
    model, recipe, _ = load_checkpoint(run / "checkpoint.pt")
    want = model.predict(image, fit_size((75, 101), recipe.eval_size))
    got = np.asarray(Image.open(tmp_path / "out/street_trainIds.png"))
    assert (got == want).mean() > .999
    width, height = Image.open(tmp_path / "out/street_overview.png").size
    assert width == 202 and height > 75  # image and prediction side by side, a legend below
    assert str(tmp_path.parent.parent).encode() not in (tmp_path / "model.onnx").read_bytes(), "a path of this machine travels along"


def test_missing_packages(monkeypatch):
    from causal_tune.published.export import export_run
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match="This needs onnxscript>=0.7: pip install 'onnxscript>=0.7'"): export_run("runs/any")
