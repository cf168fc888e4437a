"""Adapters: how fast they are, and that they compile into one graph."""
from dataclasses import replace
import pandas as pd
import pytest
import speed
import torch
from causal_tune.adapters.base import create_adapter

SPECS = ("none", "rein", "causal_tune", "causal_tune:band=ideal", "causal_tune:residual=replace", "causal_tune:variant=released",
         "set", "set:variant=released", "fada")


@pytest.mark.slow
def test_bench_speed_writes_its_table(cli, tmp_path):
    done = cli("bench-speed", "--quick", "--out", "speed", timeout=600)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "speed" / "speed.csv")
    ratios = table[table.unit == "of explicit rein"]
    assert set(ratios.what) == {"forward", "forward and backward"} and (ratios.value > 0).all()
    assert (ratios.low <= ratios.value).all() and (ratios.value <= ratios.high).all()
    kept = table[table.unit == "of the features"].set_index("name").value
    assert kept["causal_tune"] < kept["explicit rein"] and kept["rein"] < kept["explicit rein"]
    assert table.version.notna().all()


@pytest.mark.slow
def test_peers_compute_the_same():
    "Those that are installed; SciPy and NumPy always are."
    seen = set()
    for size, what, peer, ours, theirs in speed.peer_pairs():
        if int(size.split()[0]) in (128, 256) or size.endswith("bf16"): continue  # large, and as the others
        speed.check_equal(ours(), theirs(), 1e-4, f"{what}, {size}, {peer}")
        seen.add((what, peer))
    assert seen >= {("DCT of tokens", "scipy"), ("energy of coefficients", "scipy"), ("confusion matrix", "numpy")}


@pytest.mark.slow
def test_whole_models_are_measured(monkeypatch):
    recipes = [replace(r, backbone="toy_vit", crop=(64, 64), img_size=(64, 64)) for r in list(speed.system_recipes(False, True))[:1]]
    monkeypatch.setattr(speed, "system_recipes", lambda on_gpu, quick: recipes)
    table = pd.DataFrame(speed.system_rows(True)).pivot(index="what", columns="unit", values="value")
    assert list(table.index) == ["prediction", "training step"] and (table > 0).all(axis=None)
    assert table["images/s"].is_monotonic_decreasing and table["MB at most"].is_monotonic_increasing


@pytest.mark.slow
def test_adapters_compile_into_one_graph():
    for spec in SPECS: compiles_into_one_graph(spec)


def compiles_into_one_graph(spec):
    torch.manual_seed(0)
    torch.compiler.reset()
    adapter = create_adapter(spec, num_layers=2, channels=64)
    whole = torch.compile(adapter, backend="aot_eager", fullgraph=True)
    x = torch.randn(2, 16, 64, requires_grad=True)
    y = whole(x, 1, (4, 4))
    assert torch.allclose(y, adapter(x, 1, (4, 4)), atol=1e-5), spec
    y.sum().backward()
    assert x.grad.isfinite().all(), spec
