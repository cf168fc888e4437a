"""JupyterLab in a real Chromium. As a script it measures the lab: `python tests/browser.py [FOLDER]` prints latencies
on features of the size of a ViT-S and leaves screenshots in both themes and two widths in FOLDER. `--find` only says
whether there is one."""
import json, os, re, socket, statistics, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from pathlib import Path
import nbformat
from causal_tune.figures import find_browser

CHROMIUM = find_browser()
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]

TOY = """from causal_tune.lab import FrequencyLab
from causal_tune.datasets import load_dataset
from causal_tune.segmentor import create_segmentor
data = {d: load_dataset(f"toyscapes:domain={d},split=val,n=2") for d in ("clear", "fog", "night", "rain")}
lab = FrequencyLab(create_segmentor("toy_vit", head="linear", num_classes=19), data, size=(96, 128))
lab"""
VIT_S = """import causal_tune, timm, torch
from causal_tune.lab import FrequencyLab
model = timm.create_model("vit_small_patch16_224", dynamic_img_size=True, num_classes=0)
data = {d: torch.randint(0, 255, (8, 3, 512, 512), dtype=torch.uint8) for d in ("clear", "fog", "night", "rain")}
lab = FrequencyLab(model, data)
lab"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextmanager
def jupyter(folder: Path, code: str, theme: str = "JupyterLab Light"):
    "A server on a notebook of one cell; yields the address of the notebook."
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nb.metadata.kernelspec = dict(name="python3", display_name="Python 3 (ipykernel)", language="python")
    nbformat.write(nb, folder / "lab.ipynb")
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True, exist_ok=True)
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(dict(fetchNews="false", checkForUpdates=False)))
    (settings / "themes.jupyterlab-settings").write_text(json.dumps(dict(theme=theme)))
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--port-retries=0", "--IdentityProvider.token=t", f"--ServerApp.root_dir={folder}", "--LabApp.extension_manager=readonly"]
    env = os.environ | dict(JUPYTERLAB_SETTINGS_DIR=str(folder / "settings"), OMP_NUM_THREADS="1")
    with (folder / "server.log").open("w") as log: server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env)
    try:
        for _ in range(240):
            try: urllib.request.urlopen(f"{address}/api?token=t", timeout=2); break
            except OSError: time.sleep(.25)
        yield f"{address}/doc/tree/lab.ipynb?token=t&reset"
    finally:
        server.terminate()
        server.wait(20)


@contextmanager
def opened(address: str, width: int = 1400, height: int = 900):
    "A page with the notebook run and the lab in sight; yields it with the list of what went wrong in it."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page, errors = browser.new_page(viewport=dict(width=width, height=height)), []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(address, wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=90_000)
        for _ in range(10):  # the menu does nothing until the notebook knows its kernel
            page.locator(".jp-Notebook .jp-CodeCell .jp-InputArea-editor").first.click()
            page.locator(".lm-MenuBar-itemLabel", has_text=re.compile("^Run$")).click()
            page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
            page.wait_for_timeout(1500)
            if page.locator(".jp-InputPrompt").first.inner_text() != "[ ]:": break
        page.wait_for_selector(".ct-lab [data-view=curves] svg path", timeout=120_000)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=120_000)
        page.evaluate("document.querySelector('.ct-lab').scrollIntoView()")
        page.wait_for_timeout(2500)
        yield page, errors
        browser.close()


FIGURES = """Object.fromEntries([...document.querySelectorAll('[data-view]')].filter(card => card.offsetWidth).map(card => [card.dataset.view,
    [...card.querySelectorAll('h2, .ct-sub, .ct-body svg')].map(s => s.outerHTML).join()
    + [...card.querySelectorAll('canvas')].map(c => c.toDataURL()).join() + [...card.querySelectorAll('img')].map(i => i.src).join()]))"""


def figures(page) -> dict[str, str]:
    "Everything that each view shows, as text to compare."
    return page.evaluate(FIGURES)


def boxes(page, selector: str) -> list[dict]:
    return page.evaluate("s => [...document.querySelectorAll(s)].map(e => e.getBoundingClientRect().toJSON())", selector)


def latencies(page, handle, keys, which, pause=700) -> list[float]:
    "Milliseconds from a key on a slider's handle until the last of some figures is painted, key by key."
    page.evaluate("""() => { window.painted = {}; [...document.querySelectorAll('.ct-card .js-plotly-plot')].forEach((f, i) =>
        f.on('plotly_afterplot', () => requestAnimationFrame(() => { window.painted[i] = performance.now() }))) }""")
    page.evaluate("window.addEventListener('keydown', () => { window.pressed = performance.now() }, true)")
    handle.focus()
    out = []
    for key in keys:
        page.evaluate("window.painted = {}")
        handle.press(key)
        page.wait_for_timeout(pause)
        painted = page.evaluate("Object.fromEntries(Object.entries(window.painted).map(([i, t]) => [i, t - window.pressed]))")
        out.append(max((painted[str(i)] for i in which if str(i) in painted), default=float("nan")))
    return [v for v in out if v == v]


def main(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    keys = (["ArrowLeft"] * 5 + ["ArrowRight"] * 5) * 5
    with jupyter(folder, VIT_S) as address, opened(address) as (page, errors):
        page.screenshot(path=folder / "vit_s.png")
        cut = page.locator(".ct-lab .noUi-handle-upper").first
        block = page.locator(".ct-lab .widget-hslider:has(label:text('block')) .noUi-handle")
        for name, handle, which in (("cut-off, gain curve", cut, [0]), ("cut-off, gain curve and plane, layers x domains", cut, [0, 1, 2]),
                                    ("cut-off, every view", cut, [0, 1, 2, 3, 4]), ("block, curves, layers x domains", block, [0, 2])):
            ms = sorted(latencies(page, handle, keys, which))
            print(f"{name}: median {statistics.median(ms):.0f} ms, 95th percentile {ms[int(.95 * len(ms))]:.0f} ms, {len(ms)} moves")
        print(page.locator(".ct-about").inner_text(), "| console errors:", errors)
    for theme in ("Light", "Dark"):
        with jupyter(folder, TOY, f"JupyterLab {theme}") as address:
            for width in (1400, 900):
                with opened(address, width) as (page, errors):
                    for i in range(3):
                        page.screenshot(path=folder / f"{theme.lower()}_{width}_{i}.png")
                        page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollBy(0, 750)")
                        page.wait_for_timeout(800)
                    print(theme, width, "console errors:", errors)


if __name__ == "__main__":
    if sys.argv[1:] == ["--find"]: sys.exit(CHROMIUM is None)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lab_browser"))
