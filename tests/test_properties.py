"""Properties that hold for all inputs, tested on random ones.

In CI the same few draws each time; `HYPOTHESIS_PROFILE=search python -m pytest tests/test_properties.py` draws many and new ones.
"""
import dataclasses, json, os, string
from itertools import takewhile
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, example, given, settings, strategies as st
from causal_tune.spectra import bands as B
from causal_tune.training import evaluation as E
from causal_tune.spectra import energy as F
from causal_tune.training import recipe as R
from causal_tune.spectra import dct as S
from causal_tune.data import converters
from causal_tune.data import corruptions
from causal_tune.data import datasets
from causal_tune.data import labels as domains
from causal_tune.data import images
from causal_tune.adapters import peers
from causal_tune.adapters import released
from causal_tune.research import statistics as results
from causal_tune.adapters.base import ADAPTERS, create_adapter
from causal_tune.models.backbones import create_backbone
from causal_tune.core.registry import format_spec, parse_spec
from causal_tune.models.heads import HEADS
from causal_tune.data.images import window_starts
from causal_tune.models.segmentor import Segmentor
from causal_tune.data.augment import create_style
from timm.models.vision_transformer import VisionTransformer

few = dict(deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("ci", max_examples=25, derandomize=True, database=None, **few)
settings.register_profile("search", max_examples=1000, print_blob=True, **few)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

sides = st.integers(1, 17)
seeds = st.integers(0, 2 ** 31)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12, torch.bfloat16: .03}  # of values around 1
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from([2 ** 63, "96x128", "nan", "x" * 5000]),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=9), some, max_size=3), max_leaves=6)


def normal(seed, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

def close(a, b, dtype=torch.float32, scale=1.):
    assert a.shape == b.shape and a.dtype == b.dtype
    assert (a.double() - b.double()).abs().max() <= TOLERANCE[dtype] * scale

def in_one_line(call, *args, **options):
    "Result of a call; None for a one-line ValueError."
    try: return call(*args, **options)
    except ValueError as err: assert len(str(err).splitlines()) == 1 and len(str(err)) <= 500, str(err)


# --- transforms --------------------------------------------------------------------------------------------------------

@given(st.integers(1, 64), st.sampled_from([torch.float32, torch.float64]))
def test_the_basis_is_orthonormal(n, dtype):
    C = S.dct_matrix(n, torch.device("cpu"), dtype)
    close(C @ C.T, torch.eye(n, dtype=dtype), dtype)


@given(sides, sides, seeds, dtypes)
@example(1, 9, 0, torch.float32)
def test_there_and_back_with_the_same_energy(h, w, seed, dtype):
    x = normal(seed, 2, 3, h, w, dtype=dtype)
    X = S.dct2(x)
    close(S.idct2(X), x, dtype, 8)
    close(S.dct2(S.idct2(x)), x, dtype, 8)
    before, after = (v.double().square().sum((-2, -1)) for v in (x, X))
    assert torch.allclose(before, after, rtol=2 * TOLERANCE[dtype])


@given(sides, sides, seeds, st.floats(-9, 9), st.floats(-9, 9))
def test_the_transform_is_linear_and_separable(h, w, seed, a, b):
    x, y = normal(seed, 2, h, w)
    close(S.dct2(a * x + b * y), a * S.dct2(x) + b * S.dct2(y), scale=100)
    column, row = normal(seed, h, 1), normal(seed + 1, 1, w)
    close(S.dct2(column * row), S.dct2(column) * S.dct2(row), scale=20)


@given(sides, sides, st.integers(1, 3), seeds, dtypes, st.booleans())
def test_tokens_and_planes_agree(h, w, b, seed, dtype, inverse):
    x = normal(seed, b, 2, h, w, dtype=dtype)
    tokens = S.grid_to_tokens(x)
    assert torch.equal(S.tokens_to_grid(tokens, (h, w)), x)
    of_planes = S.idct2(x) if inverse else S.dct2(x)
    close(S.dct2_tokens(tokens, (h, w), inverse), S.grid_to_tokens(of_planes), dtype, 8)


@given(sides, sides, st.integers(0, 40))
def test_tokens_that_do_not_fill_the_grid_are_refused(h, w, n):
    assume(n != h * w)
    for call in (S.tokens_to_grid, S.dct2_tokens):
        with pytest.raises(ValueError, match="do not fill"): call(torch.zeros(1, n, 2), (h, w))


@given(sides, sides, st.floats(-9, 9))
def test_a_constant_is_dc_alone(h, w, value):
    X = S.dct2(torch.full((h, w), value, dtype=torch.float64))
    assert X[0, 0].item() == pytest.approx(value * (h * w) ** .5, abs=1e-9)
    assert X.flatten()[1:].abs().sum() < 1e-9


# --- bands -------------------------------------------------------------------------------------------------------------

cuts = st.tuples(st.floats(.01, 1.35), st.floats(.01, 1.35)).map(sorted).filter(lambda c: c[1] - c[0] > .01)

@st.composite
def options_of(draw, name):
    low, high = draw(cuts)
    if name == "none": return {}
    if name == "gaussian": return dict(center=(low + high) / 2, width=(high - low) / 2)
    if name == "piecewise": return dict(low=low / 1.4, high=high / 1.4)
    if name == "butterworth": return dict(low=low, high=high, order=draw(st.integers(1, 8)))
    return dict(low=low, high=high)

specs = st.sampled_from(sorted(B.BANDS)).flatmap(lambda name: st.tuples(st.just(name), options_of(name)))

@torch.no_grad()
def gain_of(band, h, w): return band(h, w)


@given(specs, sides, sides)
def test_gains_lie_between_0_and_1(spec, h, w):
    gain = gain_of(B.BANDS[spec[0]](**spec[1]), h, w)
    assert gain.shape == (h, w) and gain.min() >= -1e-6 and gain.max() <= 1 + 1e-6


@given(specs, sides, sides, seeds, dtypes)
def test_kept_and_removed_add_up(spec, h, w, seed, dtype):
    x = normal(seed, 2, h, w, dtype=dtype)
    band = B.create_band(format_spec(*spec))
    kept, removed = (part.detach() for part in B.split_by_band(x, band))
    close(kept + removed, x, dtype, 8)
    def complement(h, w): return 1 - gain_of(band, h, w)
    close(B.split_by_band(x, complement)[0], removed, torch.float32 if dtype is torch.float64 else dtype, 30) # gains are float32


@given(specs)
def test_a_band_is_what_its_spec_says(spec):
    name, options = spec
    band = B.create_band(format_spec(name, options))
    for option, value in options.items():
        stored = torch.as_tensor(getattr(band, option)).detach()
        assert float(stored) == pytest.approx(value, abs=1e-5)
    if dataclasses.is_dataclass(band):
        assert B.create_band(format_spec(name, dataclasses.asdict(band))) == band
    ends = band.cutoffs
    assert list(ends) == sorted(ends) and all(end >= 0 for end in ends)


@given(st.sampled_from(["dog", "ideal", "butterworth", "learnable"]), cuts, st.floats(0, .2), st.floats(0, .05), sides, sides)
def test_a_wider_band_keeps_no_less(name, ends, above, below, h, w):
    low, high = ends
    narrow = gain_of(B.BANDS[name](low, high), h, w)
    wide = gain_of(B.BANDS[name](max(low - below, .005), high + above), h, w)
    assert (wide >= narrow - 1e-5).all()


@given(specs.filter(lambda spec: spec[0] != "piecewise"), st.integers(1, 9), st.integers(1, 9), st.integers(2, 3))
def test_a_radius_has_one_gain_on_every_grid(spec, h, w, times):
    band = B.BANDS[spec[0]](**spec[1])
    if spec[0] == "ideal": assume(((B.radial_frequency(h, w)[..., None] - torch.tensor(band.cutoffs)).abs() > 1e-6).all())
    close(gain_of(band, h * times, w * times)[::times, ::times], gain_of(band, h, w))


@given(sides, sides)
def test_radii_are_shares_of_each_side(h, w):
    k, l = np.mgrid[:h, :w]
    close(B.radial_frequency(h, w), torch.from_numpy(np.hypot(k / h, l / w)).float())


@given(cuts, sides, sides)
def test_an_ideal_band_keeps_what_lies_between_its_cutoffs(ends, h, w):
    r = B.radial_frequency(h, w)
    inside = (r >= ends[0]) & (r <= ends[1])
    assert torch.equal(B.IdealBand(*ends)(h, w) > 0, inside)


numbers = st.floats() | st.integers(-3, 3) | st.sampled_from([2 ** 63, None, True, "x", "nan", "inf"])

names = st.sampled_from(["low", "high", "center", "width", "order", "slope"])

@given(st.sampled_from(sorted(B.BANDS)), st.dictionaries(names, numbers, max_size=3))
@example("butterworth", dict(low=2e-313))
def test_any_values_make_a_band_or_one_line(name, options):
    band = in_one_line(B.create_band, format_spec(name, options))
    if band is not None: assert gain_of(band, 3, 4).isfinite().all()


@given(specs, sides, sides, seeds)
def test_energies_are_shared_out(spec, h, w, seed):
    assume(h * w > 1)
    energy = normal(seed, 2, h, w, dtype=torch.float64).square().numpy()
    band = B.create_band(format_spec(*spec))
    assert np.allclose(sum(F.zone_shares(energy).values()), 1)
    share = F.suppressed_share(energy, band)
    assert ((share >= 0) & (share <= 1 + 1e-6)).all() and np.allclose(sum(F.zone_shares(energy, band).values()), share)
    profile = F.radial_profile(energy)
    assert np.allclose(profile.energy @ profile.count, energy.sum((-2, -1)) - energy[:, 0, 0]) and profile.count.sum() == h * w - 1
    assert np.allclose(F.energy_change_db(energy[0], energy[1]), -F.energy_change_db(energy[1], energy[0]))


# --- other spectra -----------------------------------------------------------------------------------------------------

@given(st.integers(1, 4), st.integers(1, 7), st.integers(1, 5), seeds)
def test_the_released_planes_there_and_back(b, s, c, seed):
    x = normal(seed, b, s * s, c)
    planes = released.to_planes(x)
    assert planes.shape == (b, c, s, s) and torch.equal(released.from_planes(planes), x)
    assert torch.equal(planes.flatten(), x.transpose(0, 1).flatten()) # numbers in the order (n, b, c)
    clipped = released.released_inverse(999 * normal(seed, s, s))
    assert clipped.min() >= 0 and clipped.max() <= 255
    assert released.released_inverse(torch.tensor([[1e6]])) == 255
    close(released.released_inverse(S.dct2(torch.full((1, 1), 3.))), torch.full((1, 1), 3.))
    X = 40 * normal(seed, s, s, dtype=torch.float64)
    close(released.released_inverse(X), torch.fft.ifft2(X, norm="ortho").real.clamp(0, 255), torch.float64, 1e3)


@given(st.integers(1, 8), st.integers(1, 8), seeds)
def test_wavelets_and_phases_there_and_back(h, w, seed):
    x = normal(seed, 2, 2 * h, 2 * w, 3)
    low, high = peers.haar(x)
    close(peers.inverse_haar(low, high, h), x, scale=5)
    assert (low.square().sum() + high.square().sum()).item() == pytest.approx(x.square().sum().item(), rel=1e-4)
    tokens = normal(seed, 2, h * w, 3)
    amplitude, phase = peers.to_polar(tokens, (h, w))
    close(peers.irfft2_tokens(amplitude * phase.cos(), amplitude * phase.sin(), (h, w)), tokens, scale=5)
    assert (amplitude >= 0).all() and phase.abs().max() <= np.pi + 1e-6


# --- adapters ----------------------------------------------------------------------------------------------------------

TOKEN = ("none", "rein", "set", "fada", "causal_tune", "causal_tune:residual=replace", "causal_tune:variant=released")
WEIGHTS = ("lora", "soma", "full")
tokenwise = st.sampled_from(TOKEN)

def test_every_adapter_is_looked_at():
    assert {spec.partition(":")[0] for spec in TOKEN} | set(WEIGHTS) == set(ADAPTERS.names())
    assert {"described", "released"} == set(ADAPTERS["causal_tune"].names())

def adapter_of(spec, seed, **options):
    torch.manual_seed(seed)
    if spec != "none": options = dict(num_tokens=3, rank=2) | options
    return create_adapter(spec, 2, 12, query_dim=8, **options)

def moved(adapter, seed): # away from its start
    for i, p in enumerate(adapter.parameters()): p.data += .05 * normal(seed + i, *p.shape)
    return adapter

def grid_for(spec, h, w): return (max(h, w),) * 2 if "released" in spec else (h, w)


@torch.no_grad()
@given(tokenwise, st.integers(1, 7), st.integers(1, 7), seeds)
def test_adapters_that_start_at_zero_are_the_identity(spec, h, w, seed):
    assume("replace" not in spec)
    grid = grid_for(spec, h, w)
    x = normal(seed, 2, grid[0] * grid[1], 12)
    zero = {} if spec == "none" else dict(init="zero")
    close(adapter_of(spec, seed, **zero)(x, 1, grid), x)


@torch.no_grad()
@given(tokenwise, st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), seeds, st.permutations(range(3)),
       st.sampled_from(["float", "double", "autocast"]))
def test_images_do_not_look_at_each_other(spec, h, w, b, seed, order, precision):
    grid = grid_for(spec, h, w)
    if "released" in spec: b = 1 # published as it is, it mixes the images of a batch
    adapter = moved(adapter_of(spec, seed), seed)
    x = normal(seed, b, grid[0] * grid[1], 12)
    if precision == "double": adapter, x = adapter.double(), x.double()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        y = adapter(x, 0, grid)
        order = [i for i in order if i < b]
        permuted = adapter(x[order], 0, grid)
        alone = adapter(x[:1], 0, grid)
    assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    tolerance = torch.bfloat16 if precision == "autocast" else torch.float32
    close(permuted, y[order], tolerance, 3)
    close(alone, y[:1], tolerance, 3)


@torch.no_grad()
@given(cuts, st.integers(2, 7), st.integers(2, 7), seeds)
def test_what_lies_outside_the_band_neither_acts_nor_changes(ends, h, w, seed):
    band = B.IdealBand(*ends)
    inside = band(h, w) > 0
    adapter = moved(adapter_of("causal_tune", seed, band=band), seed)
    x, more = normal(seed, 2, 1, 12, h, w)
    other = S.grid_to_tokens(x + B.split_by_band(more, band)[1])
    x = S.grid_to_tokens(x)
    change = adapter(x, 0, (h, w)) - x
    close(adapter(other, 0, (h, w)) - other, change)
    changed = S.dct2(S.tokens_to_grid(change, (h, w)))[..., ~inside]
    if inside[0, 0]: assert changed.abs().sum() < 1e-4
    else: assert changed[..., 1:].abs().sum() < 1e-4 # but for the bias, which is DC


@torch.no_grad()
@given(tokenwise, st.sampled_from([(3, 3), (2, 5), (1, 4)]), seeds)
def test_a_state_brings_an_adapter_back(spec, grid, seed):
    grid = grid_for(spec, *grid)
    adapter, other = moved(adapter_of(spec, seed), seed), adapter_of(spec, seed + 1)
    other.load_state_dict(adapter.state_dict())
    x = normal(seed, 1, grid[0] * grid[1], 12)
    assert torch.equal(other(x, 1, grid), adapter(x, 1, grid))
    ours, theirs = adapter.queries(), other.queries()
    assert ours is theirs is None or torch.equal(ours, theirs)


def vit(prefix, seed): # number of tokens before the patches
    torch.manual_seed(seed)
    sizes = dict(img_size=32, patch_size=8, embed_dim=12, depth=2, num_heads=2)
    return VisionTransformer(**sizes, num_classes=0, global_pool="", dynamic_img_size=True,
                             class_token=prefix > 0, reg_tokens=max(0, prefix - 1))


@torch.no_grad()
@settings(max_examples=max(10, settings().max_examples // 2))
@given(st.sampled_from([*TOKEN, *WEIGHTS]), st.sampled_from([0, 1, 5]), st.integers(1, 40), st.integers(1, 40), seeds)
def test_adapters_see_patches_alone(spec, prefix, height, width, seed):
    assume("replace" not in spec)
    if "released" in spec: height = width = max(height, width)
    grid = -(-height // 8), -(-width // 8)
    x = normal(seed, 2, 3, height, width)
    bare = create_backbone(vit(prefix, seed), "none")
    rank = {} if spec in ("none", "full") else dict(rank=2)
    zero = dict(init="zero", num_tokens=3) if spec in TOKEN and spec != "none" else dict(first_layer=0) if spec in ("lora", "soma") else {}
    adapted = create_backbone(vit(prefix, seed), spec, query_dim=8, **rank, **zero)
    seen = []
    forward = adapted.adapter.forward
    adapted.adapter.forward = lambda tokens, layer, grid: seen.append((tokens.shape[1], grid)) or forward(tokens, layer, grid)
    features = adapted(x)
    assert set(seen) == {(grid[0] * grid[1], grid)}
    for ours, plain in zip(features, bare(x)):
        assert ours.shape[-2:] == grid
        close(ours, plain, scale=5)


@torch.no_grad()
@given(st.sampled_from(WEIGHTS), st.sampled_from([0, 1, 5]), seeds)
def test_merged_into_the_weights_it_computes_the_same(name, prefix, seed):
    rank = {} if name == "full" else dict(rank=2, first_layer=0)
    backbone = create_backbone(vit(prefix, seed), name, **rank)
    moved(backbone.adapter, seed)
    x = normal(seed, 1, 3, 24, 32)
    before = backbone(x)
    names = set(vit(prefix, seed).state_dict())
    for ours, merged in zip(before, backbone.merge()(x)): close(merged, ours, scale=10)
    assert set(backbone.model.state_dict()) == names and not any(p.requires_grad for p in backbone.parameters())


# --- labels ------------------------------------------------------------------------------------------------------------

ids = st.integers(0, 254)
tables = st.dictionaries(ids, ids, min_size=1, max_size=20)

@given(st.lists(ids, min_size=1, max_size=20, unique=True), st.randoms(use_true_random=False), seeds)
def test_a_table_and_its_inverse(old, rng, seed):
    new = rng.sample(range(255), len(old))
    table = dict(zip(old, new))
    labels = np.random.default_rng(seed).choice([*old, 255], (4, 5)).astype(np.uint8)
    there = domains.remap(labels, table, strict=True)
    assert np.array_equal(domains.remap(there, {b: a for a, b in table.items()}, strict=True), labels)


@given(tables, st.lists(st.integers(-5, 300), min_size=1, max_size=9))
def test_strict_refuses_what_the_table_lacks(table, labels):
    unknown = set(labels) - set(table) - {255}
    loose = domains.remap(np.array(labels), table)
    assert loose.tolist() == [table.get(i, 255) for i in labels]
    if not unknown: assert np.array_equal(domains.remap(np.array(labels), table, strict=True), loose)
    else:
        with pytest.raises(ValueError, match=str(min(unknown))): domains.remap(np.array(labels), table, strict=True)


@given(st.sampled_from(sorted(domains.LABEL_SPACES)), seeds)
def test_colours_tell_the_class(name, seed):
    space = domains.LABEL_SPACES[name]
    labels = np.random.default_rng(seed).choice([*range(len(space)), 255], (5, 6))
    colours = space.colorize(labels)
    table = {tuple(c): i for i, c in enumerate(space.palette.tolist())} | {(0, 0, 0): 255}
    assert [table[tuple(c)] for c in colours.reshape(-1, 3).tolist()] == labels.ravel().tolist()


boxes = st.tuples(st.integers(0, 11), st.integers(0, 7), st.integers(0, 11), st.integers(0, 7))

@given(st.lists(st.tuples(st.sampled_from(domains.CITYSCAPES.classes), boxes), max_size=5), st.booleans())
def test_polygons_are_painted_back_to_front(shapes, group):
    wanted = np.full((8, 12), 255)
    objects = []
    for name, (x0, y0, x1, y1) in shapes:
        (x0, x1), (y0, y1) = sorted((x0, x1)), sorted((y0, y1))
        if group and name != "pole": name += "group" # a polegroup is another class
        objects.append(dict(label=name, polygon=[[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
        wanted[y0:y1 + 1, x0:x1 + 1] = domains.CITYSCAPES.classes.index(name.removesuffix("group"))
    painted = converters.draw_polygons(dict(imgWidth=12, imgHeight=8, objects=objects))
    assert np.array_equal(np.asarray(painted), wanted)


# --- specs and descriptors ---------------------------------------------------------------------------------------------

words = st.text(string.ascii_letters + "_./é", min_size=1, max_size=9).filter(lambda w: w.lower() not in ("true", "false", "none"))
numbered = st.from_regex("0[0-9][0-9A-F]{1,4}", fullmatch=True) # a name such as 0016E5
values = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | words | numbered

@given(words, st.dictionaries(words, values, max_size=4))
def test_specs_there_and_back(name, options): assert parse_spec(format_spec(name, options)) == (name, options)


READERS = [parse_spec, B.create_band, datasets.parse_dataset_spec, create_style,
           lambda text: create_adapter(text, 2, 12, query_dim=8), lambda text: HEADS.create(text, 12, 3), corruptions.parse_corruption]
known = st.sampled_from(["dog", "ideal:low=", "toyscapes:", "camvid:split=", "rein:rank=", "spurious:p=", "amplitude:beta=", "dpt:width=",
                         "fog:", "n=3", ",", "=", ":", "causal_tune:band=", "variant=released", "nan", "-1", "1e999", "[[", "(" * 200,
                         "9" * 5000, "none", "True", "low=.2", "0x", "\n", "size=96x128"])

@given(st.sampled_from(range(len(READERS))), st.lists(known | st.text(max_size=6), max_size=6).map("".join))
@settings(max_examples=4 * settings().max_examples)
def test_any_text_is_read_or_refused_in_one_line(reader, text): in_one_line(READERS[reader], text)


@st.composite
def descriptors(draw):
    name = draw(st.sampled_from(["toyscapes", *datasets.LAYOUTS]))
    allowed = datasets.dataset_options(name)
    free = dict(n=st.integers(1, 10 ** 6), size=st.just("96x128"), corruption=st.sampled_from(["fog", "snow:2"]))
    chosen = draw(st.lists(st.sampled_from(sorted(allowed)), unique=True))
    return name, {key: draw(free[key] if key in free else st.sampled_from(allowed[key])) for key in chosen}

@given(descriptors())
def test_what_a_data_set_offers_is_read(descriptor):
    name, options = descriptor
    found, read = datasets.parse_dataset_spec(format_spec(name, options))
    assert found == name
    for key, value in options.items():
        if key == "size": assert read["size"] == (96, 128)
        elif key in ("n", "sequence", "corruption"): assert read[key] == value
        elif key == "split" and "severity" not in options: assert read["split"] == value


# --- recipes -----------------------------------------------------------------------------------------------------------

lengths = st.integers(16, 2048)
pairs = st.tuples(lengths, lengths)
size = st.just(()) | pairs
OF_FIELD = dict(
    name=st.text(string.ascii_letters + "_-0123456789", min_size=1, max_size=20), adapter=st.sampled_from(["none", "rein", "causal_tune"]),
    band=st.none() | st.just("dog:low=.2"), rank=st.none() | st.integers(1, 64), img_size=size,
    crop=pairs, scale=st.tuples(st.floats(.1, 1), st.floats(1, 4)), color=st.booleans(), antialias=st.booleans(),
    cat_max_ratio=st.floats(.1, 1), iterations=st.integers(1, 10 ** 6), batch_size=st.integers(1, 64), lr=st.floats(1e-6, 1),
    weight_decay=st.floats(0, 1), power=st.floats(.001, 3), seed=st.integers(0, 2 ** 31), precision=st.sampled_from(["no", "bf16"]),
    targets=st.lists(st.sampled_from([f"toyscapes:domain={d},split=test,n=3" for d in ("clear", "fog", "night", "rain", "snow")]), unique=True).map(tuple), eval_size=size, window=size)
changes = st.fixed_dictionaries({}, optional=OF_FIELD)

def recipe_of(changes): return dataclasses.replace(R.Recipe(), **changes)

@given(changes)
def test_recipes_there_and_back(changes):
    recipe = recipe_of(changes)
    assert R.recipe_from_dict(R.recipe_to_dict(recipe)) == recipe
    assert R.recipe_from_dict(json.loads(json.dumps(R.recipe_to_dict(recipe)))) == recipe


def typed(value): # as somebody would type it
    if isinstance(value, bool): return "on" if value else "off"
    if isinstance(value, tuple): return (" " if value and isinstance(value[0], str) else "x").join(map(str, value))
    return str(value)

@given(changes)
def test_fields_are_read_as_they_are_typed(changes):
    for name, value in changes.items():
        if value is not None: assert R.parse_field(name, typed(value)) == value


FIELDS = [f.name for f in dataclasses.fields(R.Recipe)]

@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), anything, max_size=3))
@settings(max_examples=8 * settings().max_examples)
def test_any_dict_is_a_recipe_or_one_line(given):
    recipe = in_one_line(R.recipe_from_dict, given)
    if recipe is not None: assert R.recipe_from_dict(json.loads(json.dumps(R.recipe_to_dict(recipe)))) == recipe


@given(st.sampled_from(FIELDS), known | st.text(max_size=9))
@settings(max_examples=4 * settings().max_examples)
def test_any_text_is_a_field_or_one_line(name, text): in_one_line(R.parse_field, name, text)


# --- scores ------------------------------------------------------------------------------------------------------------

def some_labels(seed, k, n, ignored=.2):
    rng = np.random.default_rng(seed)
    labels = np.where(rng.random(n) < ignored, rng.choice([255, k, -1], n), rng.integers(k, size=n))
    return rng.integers(k, size=n), labels

@given(seeds, st.integers(1, 6), st.integers(1, 40), st.integers(0, 40))
def test_confusion_adds_up_and_leaves_out_what_is_ignored(seed, k, n, cut):
    pred, label = some_labels(seed, k, n)
    cm = E.confusion(pred, label, k)
    assert np.array_equal(E.confusion(pred[:cut], label[:cut], k) + E.confusion(pred[cut:], label[cut:], k), cm)
    counted = (label >= 0) & (label < k)
    assert np.array_equal(np.diag(cm), [((pred == label) & (label == i)).sum() for i in range(k)])
    assert np.array_equal(cm.sum(1), np.bincount(label[counted], minlength=k)) # rows are what is true
    assert np.array_equal(cm.sum(0), np.bincount(pred[counted], minlength=k))
    other = np.where(counted, pred, (pred + 1) % k)
    assert np.array_equal(E.confusion(other, label, k), cm)


@given(seeds, st.integers(2, 6), st.integers(1, 40))
def test_scores_do_not_depend_on_the_order_of_classes(seed, k, n):
    pred, label = some_labels(seed, k, n)
    order = np.random.default_rng(seed).permutation(k)
    cm = E.confusion(pred, label, k)
    renamed = E.confusion(order[pred], np.where((label >= 0) & (label < k), order[label % k], 255), k)
    assert E.miou(renamed) == pytest.approx(E.miou(cm), nan_ok=True)
    assert np.allclose(E.iou(renamed)[order], E.iou(cm), equal_nan=True)
    assert np.allclose(E.accuracy(renamed), E.accuracy(cm), equal_nan=True)
    values = E.iou(cm)[~np.isnan(E.iou(cm))]
    assert ((values >= 0) & (values <= 1)).all()
    right = E.confusion(np.where((label >= 0) & (label < k), label, 0), label, k)
    if right.sum(): assert E.miou(right) == 1 and E.accuracy(right) == (1, 1)


@given(seeds, st.integers(1, 12), st.integers(1, 3), st.integers(1, 14))
def test_draws_and_blocks_lose_nothing(seed, n, k, block):
    cms = np.random.default_rng(seed).integers(9, size=(n, k, k))
    assert (results.bootstrap_weights(n, 5, seed).sum(1) == n).all()
    redrawn = results.bootstrap_scores([cms, cms], block, draws=20, seed=seed)
    scores = redrawn.scores
    assert redrawn.blocks == -(-n // block) and scores.shape == (21, 2) and np.array_equal(scores[:, 0], scores[:, 1], equal_nan=True)
    assert scores[0, 0] == pytest.approx(E.miou(cms.sum(0)), nan_ok=True)


@given(seeds, st.integers(2, 4), st.integers(2, 40), st.floats(.01, 9))
def test_intervals_turn_round_with_the_difference(seed, n, blocks, factor):
    difference = np.random.default_rng(seed).normal(.3, 1, (101, n))
    there, back = (results.t_interval(results.BootstrapScores(scale * difference, blocks)) for scale in (1, -factor))
    assert (back.mean, back.low, back.high) == pytest.approx((-factor * there.mean, -factor * there.high, -factor * there.low))
    assert there.low <= there.high
    opposite = dict(higher="lower", lower="higher", open="open")
    assert back.p == pytest.approx(there.p) and 0 < there.p <= 1
    assert (there.p < .05) == (there.low > 0 or there.high < 0)
    assert results.significant_direction(back.mean, back.p) == opposite[str(results.significant_direction(there.mean, there.p))]


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=12), st.randoms())
def test_holm_rejects_what_its_steps_reject(p, random):
    "Step by step, as published: the smallest against 5 % / k, the next against 5 % / (k - 1), until one fails. Order does not matter."
    known = sorted(x for x in p if x == x)
    passed = list(takewhile(lambda step: step[1] * (len(known) - step[0]) < .05, enumerate(known)))
    adjusted = results.holm_adjust(p)
    assert (adjusted < .05).sum() == len(passed) and np.array_equal(np.isnan(adjusted), np.isnan(p))
    order = random.sample(range(len(p)), len(p))
    assert np.array_equal(results.holm_adjust([p[i] for i in order]), adjusted[order], equal_nan=True)


row = dict(adapter=st.sampled_from("ab"), seed=st.integers(0, 2), domain=st.sampled_from(["fog", "rain"]), miou=st.floats(0, 1))
rows = st.lists(st.fixed_dictionaries(row), min_size=1, max_size=6)

@given(rows)
def test_rows_are_a_table_or_given_twice(rows):
    keys = [(r["adapter"], r["seed"], r["domain"]) for r in rows]
    if len(set(keys)) < len(keys):
        with pytest.raises(ValueError, match="Duplicate"): results.check_rows(rows)
    else:
        assert results.check_rows(rows).to_dict("records") == rows
        table = results.summary(rows)
        own = table[table.domain != "mean"]
        assert own.n.sum() == len(rows) and np.average(own["mean"], weights=own.n) == pytest.approx(np.mean([r["miou"] for r in rows]))


# --- sizes and windows -------------------------------------------------------------------------------------------------

@given(st.tuples(st.integers(8, 3000), st.integers(8, 3000)), st.tuples(st.integers(8, 3000), st.integers(8, 3000)))
def test_what_fits_a_box_touches_it(shape, box):
    assume(max(shape) / min(shape) < 8)
    size = images.fit_size(shape, box)
    assert max(size) <= max(box) and min(size) <= min(box) and (max(size) == max(box) or min(size) == min(box))
    assert abs(size[0] * shape[1] - size[1] * shape[0]) <= max(shape) # half a pixel of rounding on each side
    assert images.fit_size(shape[::-1], box) == size[::-1] and images.fit_size(shape, box[::-1]) == size


class Stub:
    "In the place of a segmentor: some function of the images."
    num_classes = 3
    window = None # none of its own
    adapter = SimpleNamespace(needs_square_grid=False)
    def __init__(self, function): self.function = function
    def __call__(self, images): return self.function(images)


windows = st.integers(1, 30).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))

@given(st.integers(1, 40), st.integers(1, 40), windows, windows, seeds, st.booleans())
def test_windows_reach_every_pixel_and_stay_inside(H, W, rows, columns, seed, default):
    (h, dh), (w, dw) = rows, columns
    for size, window, step in ((H, h, dh), (W, w, dw)):
        starts = window_starts(size, window, step)
        reached = {start + i for start in starts for i in range(window)}
        assert starts[0] == 0 and reached >= set(range(size)) and max(starts) + min(window, size) <= size
    stride = None if default else (dh, dw)
    x = normal(seed, 1, 3, H, W)
    close(Segmentor.slide(Stub(lambda images: images), x, (h, w), stride), x)
    shapes = []
    def constant(images):
        shapes.append(images.shape[-2:])
        return torch.full_like(images, 2.5)
    close(Segmentor.slide(Stub(constant), x, (h, w), stride), torch.full_like(x, 2.5))
    assert set(shapes) == {(min(h, H), min(w, W))}


@given(st.integers(1, 9), st.integers(1, 9), st.integers(10, 20))
def test_a_stride_that_leaves_gaps_is_refused(h, w, step):
    stub = Stub(lambda images: images)
    with pytest.raises(ValueError, match="stride"): Segmentor.slide(stub, torch.zeros(1, 3, 30, 30), (h, w), (step, step))
