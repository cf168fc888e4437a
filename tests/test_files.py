"""Tensor files from elsewhere: no code in them runs, and errors are one line that names the file."""
import os, random
from itertools import product
from pathlib import Path
import pytest
import torch
from safetensors.torch import load_file, save_file
from causal_tune.models.pretrained import create_model, load_weights
from causal_tune.published.checkpoints import convert_backbone, read_weights, segmentor_from_published
from causal_tune.cli import main
from causal_tune.core.files import read_tensors
from causal_tune.training.recipe import Recipe
from causal_tune.training.build import build_segmentor
from causal_tune.training.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint

TINY_MODEL = dict(depth=1, embed_dim=24, num_heads=3, img_size=32)
READERS = dict(tensors=read_tensors, weights=lambda path: load_weights(create_model("dinov2_s", pretrained=False, **TINY_MODEL), path),
               published=read_weights, checkpoint=load_checkpoint, convert=lambda path: convert_backbone(path, path.parent / "out.pth", 32, 32))


class Runs:
    "Ordinary unpickling runs the call."
    def __init__(self, trace): self.trace = trace
    def __reduce__(self): return os.system, (f"echo > {self.trace}",)


def one_line(read, path):
    "What is read, or None for an error of one line that names the file and does not advise to read it unsafely."
    try: return read(path)
    except (ValueError, OSError) as error:
        said = str(error)
        assert path.name in said and "\n" not in said and "weights_only" not in said and "arbitrary code" not in said and len(said) < 900, said
        return None


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    "Valid files: the corpus that is damaged below."
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    state = create_model("dinov2_s", pretrained=False, **TINY_MODEL).state_dict()
    torch.save(state, folder / "backbone.pth")
    torch.save(dict(teacher={f"backbone.{k}": v for k, v in state.items()}), folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "backbone.safetensors")
    recipe = Recipe("tiny", adapter="rein", head="linear", weights="random", num_tokens=4, rank=2)
    save_checkpoint(folder / "checkpoint.pt", build_segmentor(recipe, 3), recipe, ["a", "b", "c"], 5)
    return folder


def spoilt(content: bytes, rng) -> bytes:
    "A file that was cut short, in which bytes flipped, or a piece was lost, doubled or overwritten."
    at, n = rng.randrange(len(content)), rng.choice([1, 8, 64, 1000])
    kind = rng.randrange(5)
    if kind == 0: return content[:at]
    if kind == 1: return content[:at] + bytes(b ^ 1 << rng.randrange(8) for b in content[at:at + n]) + content[at + n:]
    if kind == 2: return content[:at] + content[at + n:]
    if kind == 3: return content[:at] + content[at:at + n] + content[at:]
    return content[:at] + rng.choice([b"\xff", b"\0", b"(", b"\x80\x02"]) * n + content[at + n:]


@pytest.mark.parametrize("name", ["backbone.pth", "old.pth", "backbone.safetensors", "checkpoint.pt"])
def test_a_damaged_file_is_one_line(good, tmp_path, name):
    "The head of a file is damaged as often as all of it: there are its names, sizes and instructions."
    rng, content = random.Random(name), (good / name).read_bytes()
    readers = [read_tensors, read_weights, READERS["checkpoint"] if name == "checkpoint.pt" else READERS["weights"]]
    for i in range(60):
        path = tmp_path / f"{i}{Path(name).suffix}"
        head = rng.choice([400, 4000, len(content)])
        path.write_bytes(spoilt(content[:head], rng) + content[head:])
        for read in readers: one_line(read, path)


def test_nothing_runs(tmp_path):
    trace = tmp_path / "trace"
    for reader, zipped in product(READERS, (True, False)):
        for content in (Runs(trace), dict(state_dict=dict(a=Runs(trace))), dict(recipe=Runs(trace), adapter={}, head={}, classes=["a", "b"])):
            torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
            assert one_line(READERS[reader], tmp_path / "x.pth") is None or reader == "published", reader
            assert not trace.exists(), reader


NO_TENSORS = [b"", b"\0" * 64, b"PK\x03\x04" + b"\0" * 60, b"(" * 30_000, b"<!DOCTYPE html><html>", b"\x89PNG\r\n\x1a\n", b"version https://git-lfs",
            (2 ** 63).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}", b"\x80\x02]" + b"]" * 20_000 + b".",
            b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."]


def test_what_is_no_file_of_tensors(tmp_path):
    for content, ending in product(NO_TENSORS, (".pth", ".safetensors", ".bin")):
        path = tmp_path / f"x{ending}"
        path.write_bytes(content)
        for name, read in READERS.items(): assert not one_line(read, path), (name, content[:12])


def test_what_is_no_file(tmp_path):
    for read in READERS.values():
        for path in (tmp_path, tmp_path / "none.pth"):
            with pytest.raises(FileNotFoundError, match=path.name): read(path)


def with_changes(good, path, **changes):
    saved = torch.load(good / "checkpoint.pt", weights_only=True)
    saved["recipe"] = saved["recipe"] | changes.pop("recipe", {})
    torch.save(saved | changes, path)
    return path


HOSTILE = [
    (dict(backbone="hf-hub:somebody/model"), "Unknown backbone"), (dict(backbone="https://x.y/z.pth"), "Unknown backbone"),
    (dict(backbone="local-dir:/"), "Unknown backbone"), (dict(backbone=5), "backbone=5"), (dict(backbone="resnet50.nosuch"), "resnet50.nosuch"),
    (dict(num_tokens=10 ** 9), "num_tokens="), (dict(num_tokens=9999), "do not fit"), (dict(rank=-1), "rank="), (dict(head="dpt:width=8192"), "do not fit"),
    (dict(head=["linear"]), "head="), (dict(adapter="rein:softmax=x"), "softmax"), (dict(seed=-1), "seed="), (dict(crop=[1, 1]), "crop="), (dict(lr=float("nan")), "lr=nan"),
    (dict(iterations=True), "iterations=True"), (dict(targets=5), "targets=5"), (dict(name="../../x"), "name="), (dict(nosuch=1), "nosuch"),
    (dict(img_size=[10 ** 6, 10 ** 6]), "img_size="), (dict(band="dog:low=[["), "band"), (dict(attention="flash"), "attention")]


def test_a_hostile_recipe_is_refused_before_anything_is_built(good, tmp_path, monkeypatch):
    monkeypatch.setattr("timm.models._hub.load_state_dict_from_hf", lambda *a, **k: pytest.fail("something is downloaded"))
    for changes, named in HOSTILE:
        path = with_changes(good, tmp_path / "x.pt", recipe=changes)
        with pytest.raises(ValueError, match="x.pt") as refused: load_checkpoint(path)
        assert named in str(refused.value) and "\n" not in str(refused.value), changes


OTHER_CONTENTS = [dict(recipe=None), dict(adapter=None), dict(adapter=dict(a=5)), dict(adapter={}), dict(head=[]), dict(head={"classify.weight": torch.ones(1)}),
                                     dict(classes=5), dict(classes=["a"] * 300), dict(classes=["a"]), dict(classes=[]), dict(classes=[1, 2, 3]), dict(classes=["a", "b\nc", "d"])]


def test_a_checkpoint_of_other_contents(good, tmp_path):
    saved = torch.load(good / "checkpoint.pt", weights_only=True)
    for changes in OTHER_CONTENTS:
        torch.save(saved | changes, tmp_path / "x.pt")
        with pytest.raises(ValueError) as refused: load_checkpoint(tmp_path / "x.pt")
        assert "x.pt" in str(refused.value) and "\n" not in str(refused.value), changes


def test_numbers_that_are_none(good, tmp_path):
    saved = torch.load(good / "checkpoint.pt", weights_only=True)
    saved["head"]["classify.bias"][1] = torch.nan
    torch.save(saved, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt: The head .* 'classify.bias'"): load_checkpoint(tmp_path / "x.pt")
    state = load_file(good / "backbone.safetensors")
    state["norm.weight"][0] = torch.inf
    save_file(state, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="x.safetensors .* 'norm.weight'"): READERS["weights"](tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match="'norm.weight'"): READERS["convert"](tmp_path / "x.safetensors")


def test_weights_of_other_models(good, weights, tmp_path):
    "Each model's own file given for each other."
    torch.save(create_model("resnet50", pretrained=False, layers=(1, 1, 1, 1)).state_dict(), tmp_path / "resnet.pth")
    for path in (weights, tmp_path / "resnet.pth", good / "checkpoint.pt"):
        with pytest.raises(ValueError, match=Path(path).name): READERS["weights"](path)
        with pytest.raises(ValueError): segmentor_from_published(path, 3, 32)
    for path in (weights, good / "backbone.pth"):
        with pytest.raises(ValueError, match=f"{Path(path).name}.*checkpoint"): read_checkpoint(path)


def test_the_command_line_says_it_in_one_line(good, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for source, name in ((b"(" * 999, "a.pth"), ((good / "backbone.safetensors").read_bytes()[:3000], "a.safetensors")):
        Path(name).write_bytes(source)
        for line in ("eval X", "predict X image.png", "eval c2acdc_512 X", "eval c2acdc_512 X --backbone X", "lab --checkpoint X --export lab.html",
                     "train demo --weights X", "convert-backbone X out.pth --height 32 --width 32"):
            status = main([name if word == "X" else word for word in line.split()])
            said = capfd.readouterr().err.splitlines()
            assert status == 2 and name in said[-1] and said[-1].startswith("causal-tune: ") and not any("Traceback" in text for text in said), line
