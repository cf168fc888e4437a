"""Adapters against what was recorded of the published Rein and Causal-Tune: all of it where CAUSAL_TUNE_DATA holds it, else the
excerpts in fixtures/adapters.pt (every sixth channel of one case for each method, and the small grids)."""
import json, math, os, warnings
from pathlib import Path
import pytest, torch
import causal_tune as ct
from causal_tune.adapters.released import released_inverse
from causal_tune.spectra.bands import PiecewiseBand
from causal_tune.spectra.dct import dct2, idct2

GOLDEN = Path(os.environ.get("CAUSAL_TUNE_DATA", "data")) / "golden"
EXCERPTS = torch.load(Path(__file__).parent / "fixtures/adapters.pt", weights_only=True)
ADAPTER = {"rein": "rein", "causal": "causal_tune:variant=released"}
each = dict(rtol=0, atol=1e-4)


def recorded(name):
    path = GOLDEN / f"pieces_{name}.pt"
    return torch.load(path, weights_only=True) if path.is_file() else EXCERPTS[name]


def adapter_of(name, k):
    return ct.create_adapter(ADAPTER[name], k["num_layers"], k["embed_dims"], k["patch_size"], k["query_dims"],
                             num_tokens=k["token_length"], rank=k.get("lora_dim"), softmax=k.get("use_softmax", True),
                             init="zero" if k.get("zero_mlp_delta_f") else "scale")


@pytest.mark.parametrize("name", ADAPTER)
def test_recorded_adapters(name):
    for case, r in recorded(name)["reins"].items():
        adapter, every = adapter_of(name, r["kwargs"]), r.get("every", 1) # an excerpt holds each sixth channel, and no parameters without use
        state = {n: p for n, p in adapter.state_dict().items() if n.split(".")[0].endswith("2")} | r["state_dict"]
        adapter.load_state_dict(state)                            # strict: every published name, and no other
        def ours(t): return (t if r["batch_first"] else t.transpose(0, 1))[:, int(r["has_cls_token"]):] # patch tokens only
        x, s = ours(r["feats"]).clone().requires_grad_(), math.isqrt(ours(r["feats"]).shape[1])
        y = adapter(x, r["layer"], (s, s))
        y.backward(ours(r["gout"]))
        torch.testing.assert_close(y[..., ::every], ours(r["out"]), **each, msg=lambda m: f"{case}: {m}")
        torch.testing.assert_close(x.grad[..., ::every], ours(r["grad_feats"]), **each)
        if name == "causal": assert torch.equal(x.grad, ours(r["gout"])) # no gradient passes the released filter
        if r["has_cls_token"]:  # it passes by every adapter, and so does its gradient
            assert torch.equal(r["out"][:, 0], r["feats"][:, 0, ::every]) and torch.equal(r["grad_feats"][:, 0], r["gout"][:, 0, ::every])
        if "querys" in r: torch.testing.assert_close(adapter.queries(), r["querys"], **each)
        for n, g in r["grads"].items():
            p = adapter.get_parameter(n)
            assert (p.grad is None) == (g is None), (case, n)
            if g is not None: torch.testing.assert_close(p.grad, g, **each)


def test_recorded_filter_and_inverse():
    for part, r in recorded("causal")["mad"].items():
        if not part.startswith("compose"):
            spectrum = dct2(r["feat"])
            gain = PiecewiseBand()(*spectrum.shape[-2:])
            for ours, name in [(spectrum, "dct"), (spectrum * gain, "cal"), (spectrum * (1 - gain), "non"), (gain, "mask_cal"),
                               (1 - gain, "mask_non")]: torch.testing.assert_close(ours, r[name], **each)
            continue
        n, b, c = r["cal"].shape
        def planes(t): return t.reshape(b, c, math.isqrt(n), math.isqrt(n))
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
    for size, outcome in EXCERPTS[name]["sizes"].items():
        b, *pixels = map(int, size.split("x"))
        grid, adapter = [p // 16 for p in pixels], ct.create_adapter(ADAPTER[name], 4, 96, num_tokens=20, rank=4)
        x = torch.randn(b, math.prod(grid), 96)
        with warnings.catch_warnings(record=True) as raised:
            warnings.simplefilter("always")
            if outcome.startswith("ok"): assert adapter(x, 0, grid).shape == x.shape
            else:
                with pytest.raises(ValueError, match="variant='described'"): adapter(x, 0, grid)
        assert bool(raised) == (name == "causal" and size == "1x64x256")  # it runs, but as if on a square


def test_names_shapes_and_counts_at_vit_l():
    for name in ADAPTER:
        path = GOLDEN / f"full_vitl_keys_{name}.json"
        if not path.is_file(): pytest.skip("no full_vitl_keys_rein.json in CAUSAL_TUNE_DATA/golden")
        r = json.loads(path.read_text())
        with torch.device("meta"): adapter = ct.create_adapter(ADAPTER[name])
        prefix = "backbone.reins."
        published = {k.removeprefix(prefix): v for k, v in r["params"].items() if k.startswith(prefix)}
        assert {k: list(v.shape) for k, v in adapter.state_dict().items()} == published
        assert sum(p.numel() for p in adapter.parameters()) == r["counts"]["adapter"]


def test_no_round_trip(monkeypatch):
    torch.manual_seed(0)
    adapter, x = ct.create_adapter(ADAPTER["causal"], 1, 96, num_tokens=20, rank=4), torch.randn(2, 64, 96)
    expected = adapter(x, 0, (8, 8))
    def leaves(*args, **kwargs): raise AssertionError("numbers leave the device")
    for way in ("numpy", "__array__", "cpu", "tolist", "item"): monkeypatch.setattr(torch.Tensor, way, leaves)
    again = adapter(x, 0, (8, 8))
    monkeypatch.undo()
    torch.testing.assert_close(again, expected, **each)
