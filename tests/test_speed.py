"""Adapters: how fast they are, and that they compile into one graph."""
import pandas as pd
import pytest
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
