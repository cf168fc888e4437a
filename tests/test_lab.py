"""The frequency lab in JupyterLab in a real Chromium: what a mouse does to a slider, a chip and a cell reaches the figures."""
import json
import pytest
from conftest import ROOT
from browser import TOY, boxes, figures, jupyter, opened

CURVES, PLANE, ZONES, FEATURES, DIFFERENCE, COEFFICIENT, SEGMENTATION, IOU = range(8)


def drag(page, handle, by):
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 6): page.mouse.move(x + by * step / 5, y)
    page.mouse.up()


def changed(page, act, wait=3000):
    before = figures(page)
    act()
    page.wait_for_timeout(wait)
    after = settled(page)
    return {i for i, (a, b) in enumerate(zip(before, after)) if a != b}


def settled(page):
    "The figures once they rest; on a busy machine the slow ones may be late."
    now = figures(page)
    for _ in range(30):
        page.wait_for_timeout(1500)
        last, now = now, figures(page)
        if now == last and "counting" not in "".join(now): break
    return now


def serious(errors):
    "What a page logs, but for what anywidget says of a start that takes more than two seconds."
    return [e for e in errors if "Failed to initialize model" not in e]


@pytest.mark.browser
def test_light_and_wide(tmp_path):
    with jupyter(tmp_path, TOY) as address, opened(address) as (page, errors):
        first_screen = boxes(page, ".ct-card")[:3] + boxes(page, ".ct-bar")
        assert max(b["bottom"] for b in first_screen) <= 900 and max(b["right"] for b in first_screen) <= 1400
        handle = page.locator(".ct-lab .noUi-handle-upper").first
        assert changed(page, lambda: drag(page, handle, 40)) >= {CURVES, PLANE, ZONES, FEATURES, DIFFERENCE, SEGMENTATION}
        block = page.locator(".ct-lab .widget-hslider:has(label:text('block')) .noUi-handle")
        moved = changed(page, lambda: block.press("ArrowRight"))
        assert moved >= {CURVES, ZONES, FEATURES, DIFFERENCE} and not moved & {PLANE, SEGMENTATION, IOU}
        assert "block 5" in page.locator(".ct-card .gtitle").first.text_content()
        rain = page.get_by_role("button", name="rain", exact=True)
        assert changed(page, rain.click) >= {CURVES, ZONES, COEFFICIENT}
        cells = page.locator(".ct-card .js-plotly-plot").nth(ZONES).locator(".nsewdrag").first
        size = cells.bounding_box()
        click = lambda: cells.click(position=dict(x=size["width"] / 16, y=size["height"] / 30))  # block 0 of the first domain
        assert changed(page, click) >= {CURVES, ZONES, FEATURES, DIFFERENCE}
        assert "block 0" in page.locator(".ct-card .gtitle").first.text_content()
        assert serious(errors) == []


EVIDENCE = """import causal_tune, timm, pandas as pd
from causal_tune.lab import FrequencyLab
from causal_tune.datasets import load_dataset
from causal_tune.results import write_table
rows = [(a, d, x, .2, x - .5, x + .5, "none") for a, x in (("rein", .6), ("causal_tune", -.2)) for d in ("fog", "night")]
columns = ["adapter", "domain", "difference", "sd_over_seeds", "low", "high", "reference"]
write_table("quality_toy_differences.csv", pd.DataFrame(rows, columns=columns), "made up")
tiny = timm.create_model("vit_tiny_patch16_224", patch_size=8, depth=2, embed_dim=24, num_heads=2, num_classes=0, dynamic_img_size=True)
data = {d: load_dataset(f"toyscapes:domain={d},split=val,n=8", size=(48, 64)) for d in ("clear", "night")}
lab = FrequencyLab(tiny, data, results=".")
lab"""


@pytest.mark.browser
def test_evidence_is_measured_on_a_click(tmp_path):
    with jupyter(tmp_path, EVIDENCE) as address, opened(address) as (page, errors):
        assert page.locator(".ct-card .gtitle").last.text_content() == "Benchmark: toy"
        button = page.get_by_role("button", name="Measure", exact=True)
        assert not button.is_visible()
        page.get_by_role("button", name="evidence", exact=True).click()
        button.click()
        page.wait_for_function("document.querySelector('.ct-about').textContent.startsWith('Measuring')", timeout=20_000)
        assert button.is_disabled()
        title = page.locator(".ct-card .gtitle", has_text="Tokens of outlying norm")
        title.wait_for(timeout=120_000)
        page.wait_for_function("!document.querySelector('.ct-about').textContent.startsWith('Measuring')", timeout=20_000)
        assert button.is_enabled() and "dog, 0.20 to 0.70" in title.text_content()
        names = page.locator(".ct-card .gtitle").all_text_contents()
        information = next(i for i, name in enumerate(names) if name.startswith("What linear probes tell"))
        figures, cards = boxes(page, ".ct-card .js-plotly-plot > .plot-container"), boxes(page, ".ct-card:has(.js-plotly-plot)")
        assert all(f["right"] <= c["right"] + 1 and f["width"] > 300 for f, c in zip(figures, cards))
        moved = changed(page, page.get_by_role("button", name="paper's figure").click)
        assert information in moved and names.index("Benchmark: toy") not in moved
        assert serious(errors) == []


@pytest.mark.browser
def test_dark_and_narrow(tmp_path):
    with jupyter(tmp_path, TOY, "JupyterLab Dark") as address, opened(address, 900) as (page, errors):
        cards, figs = boxes(page, ".ct-card"), boxes(page, ".ct-card .js-plotly-plot > .plot-container")
        assert max(b["right"] for b in cards) <= 900 and all(f["right"] <= c["right"] + 1 for f, c in zip(figs, cards))
        tick = page.evaluate("getComputedStyle(document.querySelector('.ct-card .xtick text')).fill")
        assert tick == "rgb(221, 221, 221)"
        assert changed(page, page.get_by_role("button", name="paper's figure").click) >= {CURVES, PLANE, ZONES}
        assert "0.40" in page.locator(".ct-lab .widget-readout").first.inner_text()
        assert serious(errors) == []


@pytest.fixture(scope="module")
def lab():
    from causal_tune.lab import open_lab
    return open_lab(n=1)


@pytest.mark.browser
def test_views_are_saved(lab, tmp_path):
    from PIL import Image
    paths = lab.save(tmp_path / "views")
    assert {p.name for p in paths} == {f"{name}.{end}" for name in lab.figures for end in ("png", "svg")}
    assert all(Image.open(p).width == 2000 if p.suffix == ".png" else p.read_text().startswith("<svg") for p in paths)


def test_without_a_browser_nothing_is_written(lab, tmp_path, monkeypatch):
    "Where the browser is hidden, the error says what to install, and no folder is left behind."
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no chrome"))
    with pytest.raises(OSError, match="kaleido needs Chrome or Chromium. `plotly_get_chrome`"): lab.save(tmp_path / "views")
    assert not (tmp_path / "views").exists()


def test_ready_notebook_runs(tmp_path):
    import nbformat
    from nbclient import NotebookClient
    from causal_tune.lab import lab_notebook
    nb = nbformat.read(lab_notebook(tmp_path, dict(n=1)), 4)
    NotebookClient(nb, timeout=120, kernel_name="python3").execute()
    assert "application/vnd.jupyter.widget-view+json" in nb.cells[-1].outputs[-1].data
