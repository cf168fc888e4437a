"""Any value of an option is accepted or raises a one-line error that names the option."""
import inspect
import pytest

from causal_tune.adapters.base import ADAPTERS, create_adapter
from causal_tune.spectra.bands import BANDS, create_band
from causal_tune.core.registry import Registry, parse_spec
from causal_tune.data.corruptions import parse_corruption
from causal_tune.models.heads import HEADS
from causal_tune.models.segmentor import create_segmentor
from causal_tune.data.augment import STYLES
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


def check_value(create, spec, option):
    "Lines about values that were neither refused in one line nor are of the option's type."
    annotation = str(inspect.signature(registry_entry(spec)).parameters[option].annotation)
    for kind, value in WRONG.items():
        refused = refused_in_one_line(lambda: create(spec, **{option: value}), option)
        numeric = annotation in ("int", "float", "bool", "int | None") and kind in NO_NUMBERS
        unbounded = annotation in ("int", "int | None", "float") and kind in ("true", "nan", "inf", "-inf", "beyond")
        assert refused or not (numeric or unbounded or (annotation.startswith("int") and kind == "fraction")), f"{spec}: {option}={kind}"
    separator = "," if ":" in spec else ":"
    for text in TEXTS:
        refused = refused_in_one_line(lambda: create(f"{spec}{separator}{option}={text}"), "")
        assert refused or text not in ("", "a=b,a=c", "\x00"), f"{spec}: {option}={text!r}"

def registry_entry(spec):
    name, options = parse_spec(spec)
    for registry in (BANDS, STYLES, HEADS, ADAPTERS):
        if name in registry and name != "none": return registry[name][options["variant"]] if options else registry[name]


@pytest.mark.parametrize("create", [create_band_with, create_style_with, create_head_with, create_adapter_with])
def test_any_value_and_any_text_of_any_option(create):
    for made_by, spec, option in entries():
        if made_by is create: check_value(create, spec, option)


def refuse_all(make, values): # which of these values make something
    return [value for value in values if not refused_in_one_line(lambda: make(value), "")]


def test_specs_that_are_none():
    assert not refuse_all(create_band, ["dog:low=x", "dog:low=nan", "dog:low=.2,low=.3", "dog:low=.9", "dog:order=2", "butterworth:order=1.5", "gaussian:width=0"])
    assert not refuse_all(lambda spec: create_adapter(spec, 12, 32), [
        "rein:rank=", "rein:rank=0", "rein:rank=true", "rein:rank=1e9", "rein:num_tokens=1000000000", "lora:rank=1.5", "soma:first_layer=x",
        "causal_tune:band=dog:low=x", "causal_tune:variant=5", "causal_tune:residual=1", "rein:softmax=maybe"])
    assert not refuse_all(parse_corruption, ["", "fog:0", "fog:6", "fog:1.0", "fog:x", "fogg", ":", "fog:3:3", "fog:\n", "x" * 10_000])


def test_segmentors_that_are_none():
    options = [*(dict(num_classes=n) for n in (0, 1, 256, 2.5, True, "5", None)),
               *(dict(img_size=s) for s in (0, -1, "x", (96,), (0, 96), 10 ** 9, float("nan"), (96, 96, 96), True)),
               *(dict(patch_size=s) for s in (0, -8, "x", 7.5)), *(dict(out_layers=o) for o in ([], [99], ["x"], 5, [1.5])),
               *(dict(query_dim=q) for q in (0, -1, "x", 10 ** 9)), *(dict(attention=a) for a in (None, 5, "flash")),
               *(dict(backbone=b) for b in ("hf-hub:nobody/model", "https://x.y/z", "../x", "", "vit_small_patch16_224.nosuch", 5, None)),
               *(dict(head=h) for h in ("dptt", "dpt:width=0", "dpt:width=1e9", "", 5))]
    assert not refuse_all(lambda some: create_segmentor(**dict(adapter="rein", pretrained=False) | some), options)
