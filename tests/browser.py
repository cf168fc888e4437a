"""JupyterLab in a real Chromium. As a script it measures the lab: `python tests/browser.py [FOLDER]` prints latencies, live and
exported, on features of the size of a ViT-S and of a model eight times as large, and leaves screenshots in both themes and
several widths in FOLDER. `--find` only says whether there is a browser."""
import json, os, re, socket, statistics, subprocess, sys, time, urllib.request
from contextlib import contextmanager
from pathlib import Path
import nbformat
from causal_tune.research.figures import find_browser

CHROMIUM = find_browser()
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]

HOSTILE = ["</script><script>window.hacked = 1</script>", '"><img src=x onerror="window.hacked = 1">', "a\nb 'c' `${d}` {layer} & <b>bold</b>",
           "long " + 295 * "x", "\u202eright to left \u05d0\u05d1"]  # names of folders, classes and files

TOY = """from causal_tune.lab.widget import FrequencyLab
from causal_tune.data.datasets import load_dataset
from causal_tune.models.segmentor import create_segmentor
data = {d: load_dataset(f"toyscapes:domain={d},split=val,n=2") for d in ("clear", "fog", "night", "rain")}
lab = FrequencyLab(create_segmentor("toy_vit", head="linear", num_classes=19), data, size=(96, 128))
lab"""
VIT_S = """import causal_tune, timm, torch
from causal_tune.lab.widget import FrequencyLab
model = timm.create_model("vit_small_patch16_224", dynamic_img_size=True, num_classes=0)
data = {d: torch.randint(0, 255, (8, 3, 512, 512), dtype=torch.uint8) for d in ("clear", "fog", "night", "rain")}
lab = FrequencyLab(model, data)
lab"""
LARGE = """import causal_tune, timm, torch
from causal_tune.lab.widget import FrequencyLab
class Same(torch.nn.Module): # no attention: what the features are does not matter here, how many there are does
    def forward(self, x, *args, **options): return x
model = timm.create_model("vit_tiny_patch16_224", depth=24, embed_dim=24, num_heads=1, patch_size=8, dynamic_img_size=True, num_classes=0)
for block in model.blocks: block.attn = Same()
data = {d: torch.randint(0, 255, (16, 3, 512, 512), dtype=torch.uint8) for d in ("clear", "fog", "night", "rain", "snow")}
lab = FrequencyLab(model, data)
lab"""
EXPORT = """
sent = lambda value: len(value) if isinstance(value, (bytes, str)) else sum(map(sent, value.values() if isinstance(value, dict) else value)) \\
    if isinstance(value, (dict, list, tuple)) else 8
print(f"{sent(lab._data) / 1e6:.1f} MB sent, {lab.export_html('lab.html').stat().st_size / 1e6:.1f} MB exported")
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


OPENING = """() => {
    const at = window.opening = {}, look = () => {
        if (/\\d/.test(document.querySelector(".jp-InputPrompt")?.textContent)) at.ended ??= performance.now();
        if (document.querySelector("[data-view=difference] svg path")) at.drawn ??= performance.now();
        if (!at.ended || !at.drawn) requestAnimationFrame(look);
    };
    look();
}"""  # when the cell ended, and when the last view of the lab that needs no model was drawn


@contextmanager
def opened(address: str, width: int = 1400, height: int = 900):
    "A page with the executed notebook and the lab visible; yields it with the list of its errors."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page, errors = browser.new_page(viewport=dict(width=width, height=height)), []
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(address, wait_until="domcontentloaded")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=90_000)
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=90_000)
        page.evaluate(OPENING)
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
    "Contents of each view as text, for comparison."
    return page.evaluate(FIGURES)


def boxes(page, selector: str) -> list[dict]:
    return page.evaluate("s => [...document.querySelectorAll(s)].map(e => e.getBoundingClientRect().toJSON())", selector)


FIRST = ("curves", "plane", "zones")  # what the first screen shows
METER = """names => {
    window.addEventListener("keydown", () => { window.met = { pressed: performance.now(), painted: {} } }, true);
    for (const name of names) new MutationObserver(() => requestAnimationFrame(() => { window.met.painted[name] = performance.now() }))
        .observe(document.querySelector(`[data-view=${name}] .ct-body`), { subtree: true, childList: true, attributes: true });
}"""


def latencies(page, handle, keys, which=FIRST, pause=400) -> list[float]:
    """Milliseconds from a key on a slider's handle until the frame after the one in which the last of some views changed, key by key;
    keys that change none of them are left out."""
    page.evaluate(METER, list(which))
    handle.focus()
    out = []
    for key in keys:
        handle.press(key)
        page.wait_for_timeout(pause)
        met = page.evaluate("window.met")
        if met["painted"]: out.append(max(met["painted"].values()) - met["pressed"])
    return out


def told(name, page, rounds=5):
    "A line with latencies of the handle of a cut-off, and one of the slider of blocks."
    keys = (["ArrowLeft"] * 5 + ["ArrowRight"] * 5) * rounds
    for control, selector, which in (("cut-off, first screen", ".ct-high", FIRST), ("block, first screen", "[data-of=layer] input", ("curves", "zones")),
                                     ("cut-off, every view", ".ct-high", (*FIRST, "difference", "features"))):
        ms = sorted(latencies(page, page.locator(selector), keys, which))
        print(f"{name}; {control}: median {statistics.median(ms):.0f} ms, 95th percentile {ms[int(.95 * len(ms))]:.0f} ms, {len(ms)} of {len(keys)} moves")


@contextmanager
def exported(file: Path, width: int = 1400, height: int = 900, **options):
    "An opened page of `export_html`; yields it with the list of its errors."
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        page, errors = browser.new_page(viewport=dict(width=width, height=height), **options), []
        page.on("console", lambda m: errors.append(m.text))
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(file.as_uri())
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        page.wait_for_timeout(800)
        yield page, errors
        browser.close()


def main(folder: Path):
    folder.mkdir(parents=True, exist_ok=True)
    print("load:", *os.getloadavg())
    for name, code in (("ViT-S, 12 blocks, 32 x 32, 4 x 8 images", VIT_S), ("24 blocks, 64 x 64, 5 x 16 images", LARGE)):
        with jupyter(folder, code + EXPORT) as address, opened(address) as (page, errors):
            page.screenshot(path=folder / "live.png")
            print(f"live; {name}: all drawn {page.evaluate('(opening.drawn - opening.ended) / 1000'):.1f} s after the cell's end")
            told(f"live; {name}", page)
            print(page.locator(".ct-about").inner_text(), page.locator(".jp-OutputArea-output pre").all_inner_texts(), "| errors:", errors)
        with exported(folder / "lab.html") as (page, errors): told(f"exported; {name}", page)
    for theme in ("Light", "Dark"):
        with jupyter(folder, TOY + EXPORT, f"JupyterLab {theme}") as address:
            for width in (1400, 900):
                with opened(address, width) as (page, errors):
                    for i in range(3):
                        page.screenshot(path=folder / f"{theme.lower()}_{width}_{i}.png")
                        page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollBy(0, 750)")
                        page.wait_for_timeout(800)
                    print(theme, width, "console errors:", errors)
        for width in (1400, 390):
            with exported(folder / "lab.html", width, color_scheme=theme.lower()) as (page, errors):
                page.screenshot(path=folder / f"page_{theme.lower()}_{width}.png", full_page=True)
                print("exported", theme, width, "console errors:", errors)


if __name__ == "__main__":
    if sys.argv[1:] == ["--find"]: sys.exit(CHROMIUM is None)
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/lab_browser"))
