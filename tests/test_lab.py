"""The frequency lab in JupyterLab in a real Chromium: what a mouse does to a slider, a chip and a cell reaches the figures."""
import json, os, subprocess, sys, time, urllib.request
import pytest
from browser import CHROMIUM, FLAGS, HOSTILE, TOY, boxes, figures, free_port, jupyter, opened

def drag(page, handle, by):
    box = handle.bounding_box()
    x, y = box["x"] + by[0], box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for step in range(1, 6): page.mouse.move(x + (by[1] - by[0]) * step / 5, y)
    page.mouse.up()


def changed(page, act, wait=1500):
    before = figures(page)
    act()
    page.wait_for_timeout(wait)
    after = settled(page)
    return {name for name in after if after[name] != before.get(name)}


def settled(page):
    "The figures once they rest; on a busy machine the slow ones may be late."
    now = figures(page)
    for _ in range(30):
        page.wait_for_timeout(1000)
        last, now = now, figures(page)
        if now == last and "counting" not in str(now) and "asking" not in str(now): break
    return now


def serious(errors):
    "Log messages of a page, except anywidget's warning about a slow start."
    return [e for e in errors if "Failed to initialize model" not in e]


def at(page, cut): # where a cut-off's handle is, in pixels of its slider
    return 8 + (page.locator(".ct-high").bounding_box()["width"] - 16) * (cut - .01) / 1.4


LINKED = TOY.removesuffix("\nlab") + """
import ipywidgets as widgets
from IPython.display import display
slider, said = widgets.IntSlider(4, 0, 7), widgets.HTML()
widgets.jslink((slider, "value"), (lab, "layer"))
lab.observe(lambda change: setattr(said, "value", f"<i id='said'>{lab.layer} {lab.cuts[1]:.2f} {lab.band.high:.2f} {lab.domain}</i>"))
display(lab, slider, said)"""


@pytest.mark.browser
def test_light_and_wide(tmp_path):
    with jupyter(tmp_path, LINKED) as address, opened(address) as (page, errors):
        settled(page)
        first_screen = [b for name in ("curves", "zones") for b in boxes(page, f"[data-view={name}] .ct-body")] + boxes(page, "header.ct-bar")
        assert max(b["bottom"] for b in first_screen) <= 900 and max(b["right"] for b in first_screen) <= 1400
        moved = changed(page, lambda: drag(page, page.locator(".ct-high"), (at(page, .7), at(page, .9))))
        assert moved >= {"curves", "plane", "zones", "features", "difference", "segmentation", "iou"}
        told = page.locator("#said").inner_text().split()  # Python has heard of it
        assert told[1] == told[2] == page.locator("[data-of=cuts] output").inner_text()[-4:] and abs(float(told[1]) - .9) < .03
        block = page.locator("[data-of=layer] input")
        moved = changed(page, lambda: block.press("ArrowRight"))
        assert moved >= {"curves", "zones", "features", "difference"} and not moved & {"plane", "segmentation", "iou"}
        assert "block 5" in page.locator("[data-view=curves] h2").text_content()
        rain = page.get_by_role("button", name="rain", exact=True)
        assert changed(page, rain.click) >= {"curves", "zones", "coefficient"}
        click = lambda: page.locator("[data-view=zones] svg text[fill=black], [data-view=zones] svg text[fill=white]").first.click(force=True)
        assert changed(page, click) >= {"curves", "zones", "features", "difference"}
        assert "block 0" in page.locator("[data-view=curves] h2").text_content()
        assert page.locator("#said").inner_text().endswith("clear")
        linked = page.locator(".widget-hslider .noUi-handle")
        linked.press("ArrowRight")  # another widget moves the lab
        page.wait_for_timeout(500)
        assert "block 1" in page.locator("[data-view=curves] h2").text_content()
        assert serious(errors) == []


EVIDENCE = """import causal_tune, timm
from causal_tune.lab.widget import FrequencyLab
from causal_tune.data.datasets import load_dataset
tiny = timm.create_model("vit_tiny_patch16_224", patch_size=8, depth=2, embed_dim=24, num_heads=2, num_classes=0, dynamic_img_size=True)
data = {d: load_dataset(f"toyscapes:domain={d},split=val,n=8", size=(48, 64)) for d in ("clear", "night")}
lab = FrequencyLab(tiny, data)
lab"""


@pytest.mark.browser
def test_evidence_is_measured_on_a_click(tmp_path):
    with jupyter(tmp_path, EVIDENCE) as address, opened(address) as (page, errors):
        button = page.get_by_role("button", name="Measure", exact=True)
        assert not button.is_visible()
        page.get_by_role("button", name="evidence", exact=True).click()
        button.click()
        page.wait_for_function("document.querySelector('.ct-about').textContent.startsWith('Measuring')", timeout=20_000)
        assert button.is_disabled()
        page.locator("[data-view=outliers] .main-svg").first.wait_for(timeout=120_000)
        page.wait_for_function("!document.querySelector('.ct-about').textContent.startsWith('Measuring')", timeout=20_000)
        assert button.is_enabled() and "dog, 0.20 to 0.70" in page.locator("[data-view=outliers] .ct-sub").text_content()
        drawn, cards = boxes(page, ".ct-plotly .plot-container"), boxes(page, ".ct-card:has(.ct-plotly)")
        assert all(f["right"] <= c["right"] + 1 and f["width"] > 300 for f, c in zip(drawn, cards)) and len(drawn) == 2
        moved = changed(page, page.get_by_role("button", name="paper's figure").click)
        assert "information" in moved and "outliers" not in moved
        assert serious(errors) == []


@pytest.mark.browser
def test_dark_and_narrow(tmp_path):
    with jupyter(tmp_path, TOY, "JupyterLab Dark") as address, opened(address, 900) as (page, errors):
        bodies, drawn = boxes(page, ".ct-card .ct-body"), boxes(page, ".ct-card .ct-body > svg")
        assert max(b["right"] for b in bodies) <= 900 and all(d["right"] <= b["right"] + 1 for b, d in zip(bodies, drawn))
        assert page.evaluate("getComputedStyle(document.querySelector('[data-view=curves] text')).color") == "rgb(228, 231, 235)"
        assert changed(page, page.get_by_role("button", name="paper's figure").click) >= {"curves", "plane", "zones"}
        assert "0.40" in page.locator("[data-of=cuts] output").inner_text()
        page.get_by_role("button", name="cause", exact=True).click()
        page.locator("[data-view=cause] .ct-keys").wait_for(timeout=30_000)
        page.get_by_role("button", name="Fill the map", exact=True).click()  # it takes turns with the rest, and stops
        page.locator("[data-view=map] svg text[fill=black], [data-view=map] svg text[fill=white]").first.wait_for(timeout=60_000)
        page.get_by_role("button", name="Stop", exact=True).click()
        page.get_by_role("button", name="Go on", exact=True).wait_for(timeout=30_000)
        page.select_option("[data-of=disturbed] select", "fog")
        page.locator("[data-view=cause] h2", has_text="repairs in fog").wait_for(timeout=30_000)
        assert serious(errors) == []


STRANGE = f"names = {HOSTILE!r}" + """
import numpy as np, torch
from causal_tune.data.labels import LabelSpace
from causal_tune.lab.widget import FrequencyLab
from causal_tune.models.segmentor import create_segmentor
rng = np.random.default_rng(0)
def item(): return dict(image=torch.from_numpy(rng.integers(0, 255, (3, 32, 48), dtype=np.uint8)), label=rng.integers(0, 5, (32, 48)))
head = create_segmentor("toy_vit", head="linear", num_classes=5)
head.space = LabelSpace(names[0], tuple(names), rng.integers(0, 255, (5, 3)).astype(np.uint8))
lab = FrequencyLab({names[1]: head, "b": "toy_vit"}, {name: [item()] for name in names})
lab"""


@pytest.mark.browser
def test_hostile_names_are_text(tmp_path):
    "Any names of domains, classes and models."
    with jupyter(tmp_path, STRANGE) as address, opened(address) as (page, errors):
        chips = page.locator("[role=group][aria-label=domains] .ct-chip")
        assert chips.evaluate_all("all => all.map(c => c.textContent)") == HOSTILE
        page.wait_for_function("document.querySelectorAll('[data-view=iou] svg text').length > 5", timeout=60_000)
        settled(page)
        titles = page.locator("[data-view=zones] title").evaluate_all("all => all.map(t => t.textContent)")
        assert {f"{HOSTILE[1]} · {name}" for name in HOSTILE} <= set(titles)
        classes = page.locator("[data-view=iou] svg text[transform]").evaluate_all("all => all.map(t => t.textContent)")
        assert len(classes) == 6 and classes[1].startswith("</script") and classes[2].startswith('"><img')
        assert page.evaluate("'hacked' in window") is False and page.locator(".ct-lab script, .ct-lab b").count() == 0
        assert page.locator(".ct-lab img").count() == page.locator(".ct-picture > img").count()
        wide = boxes(page, ".ct-lab")[0]
        assert all(b["right"] <= wide["right"] + 1 for b in boxes(page, ".ct-lab .ct-card, .ct-lab header, .ct-lab .ct-chip, .ct-lab .ct-foot"))
        assert serious(errors) == []


@pytest.fixture(scope="module")
def lab():
    from causal_tune.lab.launch import open_lab
    return open_lab(n=1)


SHOWN = ("curves", "plane", "zones", "features", "difference", "coefficient")


@pytest.mark.browser
def test_views_are_saved(lab, tmp_path):
    from PIL import Image
    paths = lab.save(tmp_path / "views")
    assert {p.name for p in paths} == {f"{name}.{end}" for name in SHOWN for end in ("png", "svg")}
    assert all(Image.open(p).width == 2000 if p.suffix == ".png" else p.read_text().startswith("<svg") for p in paths)


def test_a_long_job_needs_no_deep_stack():
    "Without an event loop a job runs at once, however many steps it has."
    from causal_tune.lab.widget import JobQueue
    done, errors = [], []
    JobQueue(lambda kind, error: errors.append(error)).begin("long", (done.append(i) for i in range(5000)))
    assert errors == [] and len(done) == 5000


def test_without_a_browser_nothing_is_written(lab, tmp_path, monkeypatch):
    "Where the browser is hidden, the error says what to install, and no folder is left behind."
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "no chrome"))
    with pytest.raises(OSError, match="this needs Chrome or Chromium. `plotly_get_chrome`"): lab.save(tmp_path / "views")
    assert not (tmp_path / "views").exists()


@pytest.mark.browser
def test_launched_without_a_click(tmp_path):
    "The command starts JupyterLab, runs the notebook and prints its address last; the page shows the lab and answers a key."
    from playwright.sync_api import sync_playwright
    code = ("from pathlib import Path; from causal_tune.lab.launch import lab_notebook, launch_lab; "
            f"launch_lab(lab_notebook(Path({str(tmp_path)!r}), dict(n=1)), False, ['--port={free_port()}'])")
    env = os.environ | dict(JUPYTERLAB_SETTINGS_DIR=str(tmp_path / "settings"), JUPYTERLAB_WORKSPACES_DIR=str(tmp_path / "workspaces"))
    env.pop("JUPYTER_TOKEN", None)
    with (tmp_path / "log").open("w") as log: server = subprocess.Popen([sys.executable, "-c", code], stdout=log, stderr=subprocess.STDOUT, env=env)
    try:
        for _ in range(480):
            lines = (tmp_path / "log").read_text().split("\n")
            if any("/doc/tree/frequency_lab.ipynb?token=" in line for line in lines): break
            time.sleep(.25)
        address = [line for line in lines if line][-1]
        with sync_playwright() as p:
            browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
            page, errors = browser.new_page(), []
            page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
            page.goto(address)
            page.wait_for_selector(".ct-lab [data-view=zones] svg text", timeout=60_000)
            page.wait_for_timeout(1000)
            page.locator("[data-of=layer] input").press("ArrowRight")
            page.wait_for_timeout(500)
            assert "block 5" in page.locator("[data-view=curves] h2").text_content() and page.locator(".jp-toastContainer, .Toastify__toast").count() == 0
            kernels = json.loads(urllib.request.urlopen(f"{address.split('/doc/')[0]}/api/kernels?{address.split('?')[1]}").read())
            request = urllib.request.Request(f"{address.split('/doc/')[0]}/api/kernels/{kernels[0]['id']}?{address.split('?')[1]}", method="DELETE")
            urllib.request.urlopen(request)  # a lab whose kernel is gone says so, and its filters still move
            page.locator(".ct-about", has_text="The kernel is gone").wait_for(timeout=30_000)
            before = figures(page)["curves"]
            page.locator(".ct-high").press("ArrowLeft")
            page.wait_for_timeout(1000)
            assert figures(page)["curves"] != before and page.get_by_role("button", name="evidence", exact=True).is_visible()
            browser.close()
    finally:
        server.terminate()
        server.wait(30)


def test_ready_notebook_runs(tmp_path):
    import nbformat
    from nbclient import NotebookClient
    from causal_tune.lab.launch import lab_notebook
    nb = nbformat.read(lab_notebook(tmp_path, dict(n=1)), 4)
    NotebookClient(nb, timeout=120, kernel_name="python3").execute()
    assert "application/vnd.jupyter.widget-view+json" in nb.cells[-1].outputs[-1].data
