"""Whatever value an option is given, it makes something or one line that names the option."""
import inspect
import pytest
import torch
from causal_tune.adapters.base import ADAPTERS, create_adapter
from causal_tune.spectra.bands import BANDS, create_band
from causal_tune.cli.commands import main
from causal_tune.core.registry import Registry, parse_spec
from causal_tune.data.corruptions import parse_corruption
from causal_tune.models.heads import HEADS
from causal_tune.models.segmentor import create_segmentor
from causal_tune.data.styles import STYLES
import causal_tune.models.mask2former, causal_tune.adapters.peers, causal_tune.adapters.released, causal_tune.adapters.tuning  # noqa: F401  # enter themselves

WRONG = {"text": "x", "empty": "", "nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "true": True, "fraction": 2.5, "zero": 0, "negative": -1,
         "huge": 10 ** 9, "beyond": 10 ** 400, "list": [1], "dict": {}, "none": None, "bytes": b"x", "lines": "a\nb", "long": "x" * 9999, "class": object}

NO_NUMBERS = "text", "empty", "list", "dict", "bytes", "lines", "long", "class"
TEXTS = ["", "x", "nan", "inf", "-inf", "1e999", "true", "2.5", "[1]", "(" * 300, "9" * 500, "none", "0x10", "a:b", "a=b,a=c", "\x00"]


def structural(factory): # arguments that the code that creates an entry gives by place
    return {"num_layers", "channels", "patch_size", "query_dim", "num_classes", "self"} & set(inspect.signature(factory).parameters)

def options_of(factory): return [name for name in inspect.signature(factory).parameters if name not in structural(factory)]

def entries(): # (create, spec, option) of all registries
    for name, factory in BANDS.items(): yield from ((create_band_with, name, option) for option in options_of(factory))
    for name, factory in STYLES.items(): yield from ((create_style_with, name, option) for option in options_of(factory))
    for name, factory in HEADS.items(): yield from ((create_head_with, name, option) for option in options_of(factory) if option != "linked")
    for name, factory in ADAPTERS.items():
        variants = {f"{name}:variant={v}": f for v, f in factory.items()} if isinstance(factory, Registry) else {name: factory}
        yield from ((create_adapter_with, spec, option) for spec, f in variants.items() for option in options_of(f))

def create_band_with(name, **options): return BANDS.create(name, **options)
def create_style_with(name, **options): return STYLES.create(name, **options)
def create_head_with(name, **options): return HEADS.create(name, 32, 5, **options)
def create_adapter_with(name, **options): return create_adapter(name, 12, 32, 8, 32, **options) # soma needs more than eight blocks


def refused_in_one_line(make, named):
    "Whether `make` raises a ValueError of one line that names the option."
    try: make()
    except ValueError as error:
        assert "\n" not in str(error) and len(str(error)) < 700 and named in str(error), str(error)
        return True
    return False


CASES = list(entries())

@pytest.mark.parametrize("create, spec, option", CASES, ids=[f"{spec}-{option}" for _, spec, option in CASES])
def test_any_value_of_any_option(create, spec, option):
    annotation = str(inspect.signature(registry_entry(spec)).parameters[option].annotation)
    for kind, value in WRONG.items():
        refused = refused_in_one_line(lambda: create(spec, **{option: value}), option)
        if annotation in ("int", "float", "bool", "int | None"): assert refused or kind not in NO_NUMBERS, kind
        if annotation in ("int", "int | None", "float"): assert refused or kind not in ("true", "nan", "inf", "-inf", "beyond"), kind
        if annotation.startswith("int"): assert refused or kind != "fraction"

def registry_entry(spec):
    name, options = parse_spec(spec)
    for registry in (BANDS, STYLES, HEADS, ADAPTERS):
        if name in registry and name != "none": return registry[name][options["variant"]] if options else registry[name]


@pytest.mark.parametrize("create, spec, option", CASES, ids=[f"{spec}-{option}" for _, spec, option in CASES])
def test_any_text_of_any_option(create, spec, option):
    separator = "," if ":" in spec else ":"
    for text in TEXTS:
        refused = refused_in_one_line(lambda: create(f"{spec}{separator}{option}={text}"), "")
        assert refused or text not in ("", "a=b,a=c", "\x00"), text


@pytest.mark.parametrize("spec", ["dog:low=x", "dog:low=nan", "dog:low=.2,low=.3", "dog:low=.9", "dog:order=2", "butterworth:order=1.5", "gaussian:width=0"])
def test_bands_that_are_none(spec):
    with pytest.raises(ValueError): create_band(spec)


@pytest.mark.parametrize("spec", ["rein:rank=", "rein:rank=0", "rein:rank=true", "rein:rank=1e9", "rein:num_tokens=1000000000", "lora:rank=1.5", "soma:first_layer=x",
                                  "causal_tune:band=dog:low=x", "causal_tune:variant=5", "causal_tune:residual=1", "rein:softmax=maybe"])
def test_adapters_that_are_none(spec):
    with pytest.raises(ValueError): create_adapter(spec, 12, 32)


@pytest.mark.parametrize("options", [dict(num_classes=n) for n in (0, 1, 256, 2.5, True, "5", None)]
                         + [dict(img_size=s) for s in (0, -1, "x", (96,), (0, 96), 10 ** 9, float("nan"), (96, 96, 96), True)]
                         + [dict(patch_size=s) for s in (0, -8, "x", 7.5)] + [dict(out_layers=o) for o in ([], [99], ["x"], 5, [1.5])]
                         + [dict(query_dim=q) for q in (0, -1, "x", 10 ** 9)] + [dict(attention=a) for a in (None, 5, "flash")]
                         + [dict(backbone=b) for b in ("hf-hub:timm/vit_tiny", "https://x.y/z", "../x", "", "vit_small_patch16_224.nosuch", 5, None)]
                         + [dict(head=h) for h in ("dptt", "dpt:width=0", "dpt:width=1e9", "", 5)], ids=str)
def test_segmentors_that_are_none(options):
    assert refused_in_one_line(lambda: create_segmentor(**dict(adapter="rein", pretrained=False) | options), "")


LINES = """
train demo --name ../../x | name=
train demo --name | --name needs a value
train demo --name a/b | name=
train demo --lr nan | lr=nan
train demo --lr inf | lr=inf
train demo --lr 0 | lr=0.0
train demo --power=-1 | power=-1.0
train demo --seed=-1 | seed=-1
train demo --seed 4294967296 | seed=4294967296
train demo --iterations 0 | iterations=0
train demo --iterations 1.5 | a whole number
train demo --iterations 1e8 | a whole number
train demo --batch_size 1000000 | batch_size=
train demo --crop 1x1 | crop=1
train demo --crop 1000000000 1000000000 | crop=
train demo --crop 96 | crop=(96,)
train demo --crop 8192x8192 --batch_size 65536 | pixels a step
train demo --accumulate 65536 --batch_size 65536 | pixels a step
train demo --scale 2 1 | scale=
train demo --window 64x64 --stride 65x64 | stride=
train demo --weight_decay nan | weight_decay=nan
train demo --cat_max_ratio inf | cat_max_ratio=inf
train demo --color 2 | on or off
train demo --rank 0 | rank=0
train demo --num_tokens 1 | num_tokens=1
train demo --adapter rein:rank= | key=value
train demo --adapter rein:rank=x | rank='x'
train demo --adapter causal_tune --band dog:low=x | low='x'
train demo --adapter causal_tune --band dog:low=nan | low='nan'
train demo --adapter causal_tune --band dog:low=.2,low=.3 | twice
train demo --head dpt:width=0 | width=0
train demo --head dpt:width=1.5 | width=1.5
train demo --style spurious:p=2 | p=2
train demo --precision fp16 | needs a GPU
train demo --backbone hf-hub:somebody/model | Neither a preset
train demo --weights nowhere.pth | nowhere.pth
demo --seeds 0 | --seeds
demo --seeds=-1 | --seeds
demo --seeds 1000000000 | --seeds
demo --seeds two | --seeds
bench-quality --jobs 0 | --jobs
bench-quality --jobs=-3 | --jobs
pretrain --steps=-1 | --steps
pretrain --steps 0 | --steps
pretrain --seed 1.5 | --seed
lab --n 0 | --n
lab --n=-1 --export x.html | --n
lab --size 0x0 --export x.html | eval_size=
lab --size 1 --export x.html | eval_size=
prepare gta --workers 0 | --workers
convert-backbone a b --height 0 --width 512 | --height
convert-backbone a b --height 512 | --width
convert-backbone a b --height 512 --width 1000000 | --width
convert-backbone a b --height 512 --width 512 --how nearest | --how
eval c2acdc_512 --checkpoint x.pth --window 0x0 | window=
eval c2acdc_512 --checkpoint x.pth --precision fp16 | needs a GPU
eval | model
predict x.pt | images
train | recipe
"""

@pytest.mark.parametrize("line, named", [line.split(" | ") for line in LINES.strip().splitlines()])
def test_a_line_that_cannot_be(line, named, tmp_path, monkeypatch, capfd):
    if "needs a GPU" in named and torch.cuda.is_available(): pytest.skip("there is one")
    monkeypatch.chdir(tmp_path)
    status = main([*line.split()])
    said = capfd.readouterr().err
    assert status == 2 and said.count("\n") == 1 and said.startswith("causal-tune: ") and named in said, said
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".lock")]


@pytest.mark.parametrize("text", ["", "fog:0", "fog:6", "fog:1.0", "fog:x", "fogg", ":", "fog:3:3", "fog:\n", "x" * 10_000])
def test_corruptions_that_are_none(text): assert refused_in_one_line(lambda: parse_corruption(text), "")
