"""Adapters against all that was recorded of the published Rein and Causal-Tune; skipped without the recordings."""
import json, math, os, warnings
from pathlib import Path
import pytest, torch
import causal_tune as ct
from causal_tune.spectra.bands import PiecewiseBand
from causal_tune.adapters.released import released_inverse
from causal_tune.spectra.dct import dct2, idct2

GOLDEN = Path(os.environ.get("CAUSAL_TUNE_DATA", "data")) / "golden"
ADAPTER = {"rein": "rein", "causal": "causal_tune:variant=released"}
CASES = ["lora_b1", "lora_b2", "lora_b2_layer2", "full_b1", "lora_nosoftmax_b1", "lora_nolink_b1", "lora_zeromlp_b1",
         "lora_seqfirst_nocls_b2", "lora_NeqC_b2", "lora_N256_C64_b2"]
PARTS = ["2x3x8x8", "1x2x16x16", "1x2x32x32", "1x1x64x64", "1x2x8x12", "1x1x4x4", "1x1x13x13"]
COMPOSED = ["compose_64_1_8", "compose_64_2_8", "compose_256_1_4", "compose_1024_1_2"]
each = dict(rtol=0, atol=1e-4)


def recorded(name):
    if not (GOLDEN / name).is_file(): pytest.skip(f"no {name} in CAUSAL_TUNE_DATA/golden")
    if name.endswith("json"): return json.loads((GOLDEN / name).read_text())
    return torch.load(GOLDEN / name, weights_only=True)


def adapter_of(name, k):
    return ct.create_adapter(ADAPTER[name], k["num_layers"], k["embed_dims"], k["patch_size"], k["query_dims"],
                             num_tokens=k["token_length"], rank=k.get("lora_dim"), softmax=k.get("use_softmax", True),
                             init="zero" if k.get("zero_mlp_delta_f") else "scale")


@pytest.mark.parametrize("name", ADAPTER)
def test_no_case_is_left_out(name):
    assert list(recorded(f"pieces_{name}.pt")["reins"]) == CASES


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ADAPTER)
def test_recorded_adapter(name, case):
    r = recorded(f"pieces_{name}.pt")["reins"][case]
    adapter = adapter_of(name, r["kwargs"])
    adapter.load_state_dict(r["state_dict"])
    assert adapter.state_dict().keys() == r["state_dict"].keys()
    ours = lambda t: (t if r["batch_first"] else t.transpose(0, 1))[:, int(r["has_cls_token"]):]  # patch tokens only
    x, s = ours(r["feats"]).clone().requires_grad_(), math.isqrt(ours(r["feats"]).shape[1])
    y = adapter(x, r["layer"], (s, s))
    y.backward(ours(r["gout"]))
    torch.testing.assert_close(y, ours(r["out"]), **each)
    torch.testing.assert_close(x.grad, ours(r["grad_feats"]), **each)
    if r["has_cls_token"]:  # it passes by every adapter, and so does its gradient
        assert torch.equal(r["out"][:, 0], r["feats"][:, 0]) and torch.equal(r["grad_feats"][:, 0], r["gout"][:, 0])
    if "querys" in r: torch.testing.assert_close(adapter.queries(), r["querys"], **each)
    for n, p in adapter.named_parameters():
        assert (p.grad is None) == (r["grads"][n] is None), n
        if p.grad is not None: torch.testing.assert_close(p.grad, r["grads"][n], **each)


@pytest.mark.parametrize("part", PARTS)
def test_recorded_filter(part):
    r = recorded("pieces_causal.pt")["mad"][part]
    spectrum = dct2(r["feat"])
    gain = PiecewiseBand()(*spectrum.shape[-2:])
    for ours, name in [(spectrum, "dct"), (spectrum * gain, "cal"), (spectrum * (1 - gain), "non"), (gain, "mask_cal"),
                       (1 - gain, "mask_non")]: torch.testing.assert_close(ours, r[name], **each)


@pytest.mark.parametrize("part", COMPOSED)
def test_recorded_inverse(part):
    r = recorded("pieces_causal.pt")["mad"][part]
    n, b, c = r["cal"].shape
    planes = lambda t: t.reshape(b, c, math.isqrt(n), math.isqrt(n))
    kept = r["cal"].clone().requires_grad_()
    inverse = released_inverse(planes(kept))
    torch.testing.assert_close(inverse, r["idct_approx"], **each)
    torch.testing.assert_close(inverse.reshape(n, b, c), r["fast"], **each)
    inverse.backward(planes(r["gout"]))
    torch.testing.assert_close(kept.grad, r["fast_grad"], **each)
    both = planes(r["cal"] + r["non"])
    torch.testing.assert_close(released_inverse(both), planes(r["fast_both"]), **each)
    torch.testing.assert_close(idct2(both).clamp(0, 255), planes(r["slow_cv2_both"]), **each)


@pytest.mark.parametrize("name", ADAPTER)
def test_runs_where_the_published_code_runs(name):
    for size, outcome in recorded(f"nonsquare_{name}.json").items():
        b, *pixels = map(int, size.split("x"))
        grid, adapter = [p // 16 for p in pixels], ct.create_adapter(ADAPTER[name], 4, 96, num_tokens=20, rank=4)
        x = torch.randn(b, math.prod(grid), 96)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if outcome.startswith("ok"): assert adapter(x, 0, grid).shape == x.shape
            else:
                with pytest.raises(ValueError, match="variant='described'"): adapter(x, 0, grid)
        assert bool(said) == (name == "causal" and size == "1x64x256")  # it runs, but as if on a square


@pytest.mark.parametrize("name", ADAPTER)
def test_names_shapes_and_counts_at_vit_l(name):
    r = recorded(f"full_vitl_keys_{name}.json")
    with torch.device("meta"): adapter = ct.create_adapter(ADAPTER[name])
    prefix = "backbone.reins."
    published = {k.removeprefix(prefix): v for k, v in r["params"].items() if k.startswith(prefix)}
    assert {k: list(v.shape) for k, v in adapter.state_dict().items()} == published
    assert sum(p.numel() for p in adapter.parameters()) == r["counts"]["adapter"]
    assert sum(p.numel() for p in adapter.parameters() if p.requires_grad) == 2_990_081


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
def test_no_round_trip(device, monkeypatch):
    torch.manual_seed(0)
    adapter, x = ct.create_adapter(ADAPTER["causal"], 1, 96, num_tokens=20, rank=4), torch.randn(2, 64, 96)
    expected = adapter(x, 0, (8, 8)).to(device)
    adapter, x = adapter.to(device), x.to(device)
    def leaves(*args, **kwargs): raise AssertionError("numbers leave the device")
    for way in ("numpy", "__array__", "cpu", "tolist", "item"): monkeypatch.setattr(torch.Tensor, way, leaves)
    moved = adapter(x, 0, (8, 8))
    monkeypatch.undo()
    assert moved.device == x.device
    torch.testing.assert_close(moved, expected, **each)
