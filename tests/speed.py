"""What do adapters, functions beside other packages', and whole models cost? `python tests/speed.py` writes runs/speed/speed.csv.

    python tests/speed.py             # adapters at published sizes, against Rein as its equations are written
    python tests/speed.py --quick     # the smallest size only, in less than a minute
    python tests/speed.py --peers     # also beside functions of SciPy, NumPy, torchmetrics and transformers that compute the same
    python tests/speed.py --systems   # also images per second and peak memory of whole models
    python tests/speed.py --scaling   # also how costs grow with grid, images, channels and blocks
    python tests/speed.py --serving   # also ONNX beside PyTorch, and sliding windows beside a whole image, by the wall clock

Everything is timed in turns and reported as ratios within a round (`causal_tune.compare.effects`). Peers must give equal results first; those that are not
installed are left out. The losses of Mask2Former include its matching: ten layers of 100 queries, masks of 32 x 32 and an image of 128 x 128 with all 19 classes.
Whole models are on a GPU a ViT-L with crops of 512, four at a time, with three adapters, in float32 and bfloat16, compiled and not, and with three heads: a few
minutes. On a CPU they are a ViT-S with one image of 256 x 256 in float32, where the memory of tensors is counted by `StepCounter`.
`causal-tune bench-speed` is the same in a clone of the repository.
"""
import argparse, copy, os, platform, re, sys, time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock
import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.fft import dctn
from causal_tune.adapters.base import TokenAdapter, create_adapter
from causal_tune.compare.effects import median_ratio, saved_activation_bytes, step_and_predict, time_in_rounds
from causal_tune.compare.grid import WORKER_ENV, single_threaded
from causal_tune.core.files import code_version
from causal_tune.core.files import atomic_write
from causal_tune.data.augment import train_transform
from causal_tune.data.datasets import load_dataset
from causal_tune.data.labels import CITYSCAPES
from causal_tune.models.acceleration import StepCounter, compile_blocks
from causal_tune.models.mask2former import Mask2Former
from causal_tune.models.segmentor import create_segmentor
from causal_tune.spectra.dct import dct2_tokens
from causal_tune.spectra.energy import dct_energy
from causal_tune.toyscapes.render import render_scene
from causal_tune.training.evaluation import confusion
from causal_tune.training.recipe import get_recipe
import timm # after the package, which looks after torchvision
from torchvision import tv_tensors
from torchvision.transforms import v2

TIMED_ADAPTERS = ("rein", "causal_tune", "causal_tune:band=ideal", "causal_tune:variant=released", "set", "fada") # specs of adapters
ADAPTER_SIZES = {"ViT-S, 1 image": (384, 1), "ViT-S, 4 images": (384, 4), # channels and images, of 32 x 32 patches
                 "ViT-L, 1 image": (1024, 1), "ViT-L, 4 images": (1024, 4)}


def explicit_rein(adapter: TokenAdapter, # "rein"
                  x: torch.Tensor, # (b, n, c)
                  layer: int, grid) -> torch.Tensor: # (b, n, c); the grid does not matter
    "Rein as its equations are written: what adapters are measured against."
    T = adapter.tokens(layer)
    S = (x @ T.T / x.shape[-1] ** .5).softmax(-1)
    delta = S[..., 1:] @ adapter.mlp_token2feat(T[1:])
    return x + adapter.scale * adapter.mlp_delta_f(delta + x)


def adapter_costs(size, # one of `ADAPTER_SIZES`, or (channels, images)
                  rounds: int, # see `time_in_rounds`
                  side: int = 32, # patches along a side
                  names=TIMED_ADAPTERS, # specs of adapters
) -> list[dict]: # rows with size, name, what, value, low, high, unit
    "Time and memory of adapters alone, in relation to `explicit_rein`."
    channels, images = ADAPTER_SIZES.get(size, size)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    def make(spec): return create_adapter(spec, num_layers=2, channels=channels).to(device)
    modules = {"explicit rein": make("rein")} | {spec: make(spec) for spec in names}
    adapters = modules | {"explicit rein": partial(explicit_rein, modules["explicit rein"])}
    x = torch.randn(images, side * side, channels, device=device, requires_grad=True)
    g = torch.randn_like(x)
    def forward(adapter): return adapter(x, 1, (side, side))
    def alone(adapter):
        with torch.no_grad(): forward(adapter)
    rows = []
    for what, call in {"forward": alone, "forward and backward": lambda adapter: forward(adapter).backward(g)}.items():
        seconds = time_in_rounds({name: partial(call, adapter) for name, adapter in adapters.items()}, rounds)
        rows.append(dict(name="explicit rein", what=what, value=1e3 * np.median(seconds["explicit rein"]), unit="ms"))
        rows += [dict(name=n, what=what, unit="of explicit rein", **median_ratio(seconds[n], seconds["explicit rein"])) for n in names]
    for name, adapter in adapters.items():
        kept = saved_activation_bytes(partial(forward, adapter), modules[name].parameters()) / (x.numel() * x.element_size())
        rows.append(dict(name=name, what="kept for the backward pass", value=kept, unit="of the features"))
    return [dict(size=size if isinstance(size, str) else f"{channels} channels, {images} images", **row) for row in rows]


def peer_pairs(): # yields size, what, peer, our function and theirs, both without arguments
    "What other packages compute, too."
    torch.manual_seed(0)
    for side in (16, 32, 64, 73, 96, 128, 256):
        yield f"{side} x {side}, 384 channels", "DCT of tokens", "scipy", *dct_pair(side)
        if side <= 64: yield f"{side} x {side}, 384 channels", "energy of coefficients", "scipy", *energy_pair(side)
    label, pred = torch.randint(19, (2, 1024, 2048), dtype=torch.uint8)
    def counted(): return np.bincount(19 * label.numpy().ravel().astype(np.int64) + pred.numpy().ravel(), minlength=19 * 19).reshape(19, 19)
    yield "1024 x 2048, 19 classes", "confusion matrix", "numpy", lambda: confusion(pred, label, 19), counted
    if find_spec("torchmetrics"):
        from torchmetrics.functional.classification import multiclass_confusion_matrix
        yield ("1024 x 2048, 19 classes", "confusion matrix", "torchmetrics", lambda: confusion(pred, label, 19),
               lambda: multiclass_confusion_matrix(pred.int(), label.int(), 19).numpy())
    if find_spec("transformers"): yield "10 layers, 100 queries", "losses of Mask2Former", "transformers", *loss_pair()
    with TemporaryDirectory() as folder:
        for peer, pair in reading_pairs(Path(folder)).items(): yield "1024 x 2048", "reading an image and its label", peer, *pair
    yield "1024 x 2048 to 512 x 512", "augmenting without colour", "torchvision", *augmenting_pair()
    for precision in ("fp32", "bf16"):
        size = f"4 blocks of ViT-S, 512 x 512, dpt, {precision}"
        for peer, what, pair in model_pairs(torch.bfloat16 if precision == "bf16" else None): yield size, what, peer, *pair


def dct_pair(side): # our function and theirs
    tokens = torch.randn(1, side * side, 384)
    grid = tokens.numpy().reshape(side, side, 384)
    return lambda: dct2_tokens(tokens, (side, side)).numpy().reshape(grid.shape), lambda: dctn(grid, axes=(0, 1), norm="ortho")


def energy_pair(side): # our function and theirs
    maps = torch.randn(1, 384, side, side)
    return lambda: dct_energy(maps).numpy(), lambda: np.square(dctn(maps.numpy(), axes=(2, 3), norm="ortho"), dtype=float).mean((0, 1))


def loss_pair(): # our function and theirs: class, mask and dice loss, backward pass included
    "Losses of Mask2Former from the same predictions and at the same points."
    import torchvision # noqa: F401 # before transformers, which looks whether it is there
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerConfig, Mask2FormerLoss
    classes, masks = torch.randn(1, 10, 100, 20, requires_grad=True), torch.randn(1, 10, 100, 32, 32, requires_grad=True)
    labels = torch.arange(19).repeat_interleave(16 * 64)[:128 * 128 // 2].repeat(2).view(1, 128, 128).clamp(max=18)
    head = Mask2Former(32, 19, width=32, encoder_layers=1, decoder_layers=1, num_heads=1)
    p, ids = head.points, labels.unique()
    few = p - int(.75 * p)
    points = {shape: torch.rand(shape) for shape in ((1, p, 2), (len(ids), 3 * p, 2), (len(ids), few, 2))}
    def draw(*shape, device=None): return points[shape] # the same for all layers
    def draw_together(layers, n, two, device=None): return torch.cat([x.flatten(0, 1) for x in points.values()]).repeat(layers, 1, 1)
    head.draw = draw_together
    head.predictions = lambda *features: (classes, masks)
    peer = Mask2FormerLoss(Mask2FormerConfig(num_labels=19, no_object_weight=.1), {})
    def finish(values):
        sum(values).backward()
        return torch.stack(values).detach().numpy()
    def ours():
        losses = head.losses(None, None, labels)
        return finish([losses[f"loss_{kind}"].sum() / weight for kind, weight in (("cls", 2), ("mask", 5), ("dice", 5))])
    def theirs():
        layers = [dict(masks_queries_logits=masks[:, i], class_queries_logits=classes[:, i]) for i in range(9)]
        with mock.patch("torch.rand", draw): found = peer(masks[:, 9], classes[:, 9], [(labels[0] == ids[:, None, None]).float()], [ids], layers)
        return finish([sum(v for k, v in found.items() if kind in k) for kind in ("cross_entropy", "mask", "dice")])
    return ours, theirs


def reading_pairs(folder: Path) -> dict: # peer -> our function and theirs
    "Read a frame laid out as Cityscapes. Ours also checks that the labels are trainIds and of the image's size."
    scene = render_scene(0, size=(1024, 2048))
    files = [folder / part / f"val/a/a_0_0_{ending}.png" for part, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelTrainIds"))]
    for file, values in zip(files, (scene.image, scene.labels)):
        file.parent.mkdir(parents=True)
        Image.fromarray(values).save(file)
    def tensors(image, label): return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), torch.from_numpy(label.copy())
    def pillow(): return tensors(*(np.asarray(Image.open(file)) for file in files))
    def opencv(): return tensors(cv2.cvtColor(cv2.imread(str(files[0])), cv2.COLOR_BGR2RGB), cv2.imread(str(files[1]), cv2.IMREAD_UNCHANGED))
    data = load_dataset("cityscapes:split=val", folder)
    def ours():
        item = data[0]
        return item["image"], item["label"]
    return {"Pillow": (ours, pillow), "OpenCV": (ours, opencv)}


def augmenting_pair(): # our function and theirs
    "Resize at random, crop and mirror a frame; ours without a limit for the share of one class, which torchvision has not."
    scene = render_scene(0, size=(1024, 2048))
    image, label = torch.from_numpy(scene.image).movedim(-1, 0).contiguous(), torch.from_numpy(scene.labels)
    ours = train_transform((512, 512), (1., 2.), color=False, cat_max_ratio=2.)
    theirs = v2.Compose([v2.RandomShortestSize([int(51.2 * i) for i in range(10, 21)], max_size=2048), v2.RandomCrop(512), v2.RandomHorizontalFlip()])
    def drawn(augment): # eight samples, from the same random numbers each time
        torch.manual_seed(0)
        return [x for _ in range(8) for x in augment(tv_tensors.Image(image), tv_tensors.Mask(label))]
    return lambda: drawn(ours), lambda: drawn(theirs)


def model_pairs(autocast: torch.dtype | None): # yields peer, what, (our function and theirs)
    "Steps and predictions of whole models beside plain loops over the same weights."
    torch.manual_seed(0)
    images, labels = torch.randn(1, 3, 512, 512), torch.randint(19, (1, 512, 512))
    def segmentor(adapter, seed=0):
        model = timm.create_model("vit_small_patch16_224", depth=4, img_size=512)
        model.load_state_dict(weights)
        return create_segmentor(model, adapter, "dpt", seed=seed).train()
    weights = timm.create_model("vit_small_patch16_224", depth=4, img_size=512).state_dict()
    def mixed(): return torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None)
    def step(model, loss): # a function that returns the loss, and that of another step with the same weights
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=0.)
        def run():
            with mixed(): value = loss()
            value.backward()
            optimizer.step()
            optimizer.zero_grad()
            return value.detach().numpy()[None]
        return run
    plain = timm.create_model("vit_small_patch16_224", depth=4, img_size=512).eval().requires_grad_(False)
    plain.load_state_dict(weights)
    ours = segmentor("none")
    head = copy.deepcopy(ours.head)
    def logits(x): return head(plain.forward_intermediates(x, indices=list(ours.backbone.out_layers), intermediates_only=True), None, x.shape[-2:]).float()
    yield "timm and smp", "training step, none", (step(ours, lambda: ours.loss(images, labels)), step(head, lambda: F.cross_entropy(logits(images), labels)))
    def predicted(forward):
        def run():
            with torch.inference_mode(), mixed(): return forward(images).numpy()
        return run
    yield "timm and smp", "prediction, none", (predicted(ours), predicted(logits))
    ours, theirs = segmentor("causal_tune"), segmentor("causal_tune")
    theirs.backbone.adapter.factors = lambda layer: None # the tokens in full, as the equations are written
    yield "its equations", "training step, causal_tune", tuple(step(s, lambda s=s: s.loss(images, labels)) for s in (ours, theirs))
    ours, theirs = segmentor("rein"), segmentor("rein")
    theirs.backbone.adapter.forward = partial(explicit_rein, theirs.backbone.adapter)
    yield "its equations", "training step, rein", tuple(step(s, lambda s=s: s.loss(images, labels)) for s in (ours, theirs))
    ours = segmentor("causal_tune:init=zero")
    theirs = segmentor("rein:init=zero") # both compute nothing yet, so that losses are equal
    theirs.backbone.adapter.forward = partial(explicit_rein, theirs.backbone.adapter)
    yield "Rein's equations", "training step, causal_tune", tuple(step(s, lambda s=s: s.loss(images, labels)) for s in (ours, theirs))


def check_equal(ours, theirs, near: float, message: str) -> None: # arrays, or several
    "Raise AssertionError where results differ."
    for one, other in zip(*(found if isinstance(found, (list, tuple)) else [found] for found in (ours, theirs)), strict=True):
        np.testing.assert_allclose(one, other, rtol=near, atol=near, err_msg=message)


def peer_rows(rounds: int) -> list[dict]: # rows as `adapter_costs`
    "Times in relation to those of other packages. Raises AssertionError where results differ."
    rows = []
    for size, what, peer, ours, theirs in peer_pairs():
        check_equal(ours(), theirs(), .02 if size.endswith("bf16") else 1e-4, f"{what}, {size}: {peer} computes something else")
        seconds = time_in_rounds(dict(ours=ours, theirs=theirs), rounds)
        rows.append(dict(size=size, name=peer, what=what, unit="of the peer", **median_ratio(seconds["ours"], seconds["theirs"])))
    return rows


def system_recipes(on_gpu: bool, quick: bool): # yields recipes
    "What `system_rows` measures."
    side, images = (512, 4) if on_gpu else (256, 1)
    base = get_recipe("c2acdc_512", backbone="dinov2_l" if on_gpu else "dinov2_s", weights="random", img_size=(side, side), crop=(side, side), batch_size=images)
    kinds = [dict(head=head, precision="no", compile=False) for head in ("dpt", "linear", "pmt", "mask2former")]
    if on_gpu: kinds += [dict(head="dpt", precision=p, compile=c) for p, c in (("bf16", False), ("no", True), ("bf16", True))]
    for kind in kinds[:1] if quick else kinds:
        for adapter in ("none", "rein", "causal_tune"): yield replace(base, adapter=adapter, **kind)


def system_rows(quick: bool) -> list[dict]: # rows as `adapter_costs`
    "Images per second and peak memory of a training step and of a prediction."
    on_gpu, rows = torch.cuda.is_available(), []
    for recipe in system_recipes(on_gpu, quick):
        segmentor, step, predict = step_and_predict(recipe, 19)
        if recipe.compile: compile_blocks(segmentor.backbone.model, "cuda")
        size = ", ".join([recipe.backbone, recipe.head, {"no": "fp32"}.get(recipe.precision, recipe.precision), *["compiled"] * recipe.compile])
        for what, call in {"training step": step, "prediction": predict}.items():
            seconds = time_in_rounds({what: call}, 3 if quick else 5)[what]
            rows.append(dict(size=size, name=recipe.adapter, what=what, value=recipe.batch_size / np.median(seconds), unit="images/s"))
            rows.append(dict(size=size, name=recipe.adapter, what=what, value=peak_bytes(segmentor, call, on_gpu) / 1e6, unit="MB at most"))
    return rows


def scaling_rows(rounds: int) -> list[dict]: # rows as `adapter_costs`
    "How the cost of adapters grows with the grid, the images, the channels and the blocks."
    rows = []
    def alone(axis, value, side=32, images=1, channels=384):
        found = adapter_costs((channels, images), rounds, side, ("rein", "causal_tune"))
        rows.extend(row | dict(size=f"{axis}: {value}") for row in found if row["what"] == "forward and backward" and "low" in row)
    for side in (16, 32, 64, 128, 256): alone("grid", side, side=side)
    for images in (1, 2, 4, 8, 16): alone("images", images, images=images)
    for channels in (192, 384, 768, 1024): alone("channels", channels, channels=channels)
    images, labels = torch.randn(1, 3, 256, 256), torch.randint(19, (1, 256, 256))
    for blocks in (2, 4, 8, 12): # whole steps: the gradient passes through frozen blocks, too
        def step(adapter):
            segmentor = create_segmentor(timm.create_model("vit_small_patch16_224", depth=blocks, img_size=256), adapter, "linear", seed=0, out_layers=[blocks - 1] * 4).train()
            return lambda: segmentor.loss(images, labels).backward()
        seconds = time_in_rounds({name: step(name) for name in ("none", "rein", "causal_tune")}, rounds)
        rows += [dict(size=f"blocks: {blocks}", name=name, what="training step", unit="of none", **median_ratio(seconds[name], seconds["none"]))
                 for name in ("rein", "causal_tune")]
    return rows


def serving_rows(rounds: int) -> list[dict]: # rows as `adapter_costs`; wall-clock time, so the machine must be quiet
    "ONNX beside PyTorch with one and two threads, and sliding windows beside a whole image."
    import onnxruntime
    from causal_tune.published.export import OnnxSegmentor, export_onnx
    rows = []
    segmentor = create_segmentor("dinov2_s", "causal_tune", "dpt", seed=0, weights=False, img_size=252).eval()
    image = render_scene(0, size=(252, 252)).image
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_onnx(segmentor, path, CITYSCAPES, size=252)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            def limited(file, options, providers, threads=threads, session=onnxruntime.InferenceSession):
                options.intra_op_num_threads = threads
                return session(file, options, providers=providers)
            with mock.patch("onnxruntime.InferenceSession", limited): exported = OnnxSegmentor(path)
            assert (exported.predict(image) == segmentor.predict(image)).mean() > .999
            seconds = time_in_rounds(dict(onnx=lambda: exported.predict(image), torch=lambda: segmentor.predict(image)), rounds, time.perf_counter)
            rows += [dict(size=f"252 x 252, {threads} threads", name=name, what="prediction", value=1 / np.median(took), unit="images/s") for name, took in seconds.items()]
            rows.append(dict(size=f"252 x 252, {threads} threads", name="onnx", what="prediction", unit="of PyTorch", **median_ratio(seconds["onnx"], seconds["torch"])))
    torch.set_num_threads(1)
    large = render_scene(0, size=(1024, 2048)).image
    calls = {"whole": lambda: segmentor.predict(large), "windows of 504": lambda: segmentor.predict(large, window=504)}
    seconds = time_in_rounds(calls, 2, time.perf_counter)
    rows += [dict(size="1024 x 2048", name=name, what="prediction", value=np.median(took), unit="s") for name, took in seconds.items()]
    for name, call in calls.items():
        with StepCounter() as counter: call()
        rows.append(dict(size="1024 x 2048", name=name, what="prediction", value=counter.peak / 1e6, unit="MB at most"))
    return rows


def peak_bytes(segmentor, call, on_gpu: bool) -> int:
    "The most memory that tensors take while a function runs, weights included."
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated()
    with StepCounter() as counter: call()
    return counter.peak + sum(p.numel() * p.element_size() for p in segmentor.parameters())


def bench_speed(folder, # gets speed.csv
                quick: bool = False, peers: bool = False, systems: bool = False, scaling: bool = False, serving: bool = False, # see above
) -> pd.DataFrame: # the table
    "Measure, with one thread on a CPU, and write the table."
    cpu = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", cpu.read_text()) if cpu.exists() else None
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{found[1] if found else platform.machine()}, one thread of {os.cpu_count()}"
    sizes = list(ADAPTER_SIZES)[:1] if quick else ADAPTER_SIZES
    with single_threaded():
        rows = [row for size in sizes for row in adapter_costs(size, 5 if quick else max(5, 25 // ADAPTER_SIZES[size][1]))]
        if peers: rows += peer_rows(3 if quick else 9)
        if systems: rows += system_rows(quick)
        if scaling: rows += scaling_rows(3 if quick else 7)
        if serving: rows += serving_rows(3 if quick else 9)
    table = pd.DataFrame(rows).assign(device=device, python=platform.python_version(), torch=torch.__version__, version=code_version())
    Path(folder).mkdir(parents=True, exist_ok=True)
    with atomic_write(Path(folder) / "speed.csv") as path: table.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    return table


def main() -> None:
    if WORKER_ENV.items() - os.environ.items(): os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | WORKER_ENV) # the memory settings of runs
    parser = argparse.ArgumentParser("speed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("quick", "peers", "systems", "scaling", "serving"): parser.add_argument(f"--{name}", action="store_true")
    parser.add_argument("--out", default="runs/speed", help="folder of speed.csv (default: runs/speed)")
    args = parser.parse_args()
    table = bench_speed(args.out, args.quick, args.peers, args.systems, args.scaling, args.serving)
    print(table[["size", "name", "what", "value", "unit"]].round(2).to_string(index=False))
    print(f"{args.out}/speed.csv written")


if __name__ == "__main__": main()
