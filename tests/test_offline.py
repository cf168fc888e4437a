"""The lab in one HTML file, opened from disk in a real Chromium: its numbers are those of Python, its controls work."""
import re
import numpy as np
import pytest
from browser import CHROMIUM, FLAGS, HOSTILE, boxes, figures

DOMAINS = ("clear", "fog", "night")


@pytest.fixture(scope="module")
def lab():
    from causal_tune import FrequencyLab
    from causal_tune.data.datasets import load_dataset
    data = {d: load_dataset(f"toyscapes:domain={d},split=val,n=2") for d in DOMAINS}
    return FrequencyLab("toy_vit", data, size=(80, 128), state=dict(domain="night"))  # 10 x 16: radii fall on cut-offs


@pytest.fixture(scope="module")
def file(lab, tmp_path_factory):
    return lab.export_html(tmp_path_factory.mktemp("offline") / "made here" / "lab.html")


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def opened(file, chromium):
    "The opened file. Fails if the page logs an error or requests anything but the file."
    page, errors, asked = chromium.new_page(viewport=dict(width=1400, height=900)), [], set()
    page.on("console", lambda m: errors.append(m.text))
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: asked.add(r.url))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    page.evaluate("window.initial = structuredClone(lab.state)")
    yield page
    assert errors == [] and {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    page.close()


@pytest.fixture
def page(opened):
    opened.evaluate("lab.set(structuredClone(initial))")
    opened.wait_for_timeout(300)
    return opened


def changed(page, act):
    before = figures(page)
    act()
    page.wait_for_timeout(500)
    return {name for name, now in figures(page).items() if now != before.get(name)}


def test_one_small_file(file):
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_size <= 5_000_000
    assert not re.search(r'(src|href)="(?!data:|\$)', text) and "Energies are kept with 16 bits" in text
    assert 'id="plotly"' not in text  # nothing was measured: the page needs no plotly.js


@pytest.mark.browser
def test_kept_features_are_those_of_python(page, lab):
    import base64, io, torch
    from PIL import Image
    from causal_tune.spectra.bands import split_by_band
    from causal_tune.research.figures import pca_picture
    page.evaluate("lab.set({ filter: 'dog', cuts: [.2, .7], domain: 'night', layer: 4, image: 1 })")
    page.wait_for_timeout(400)
    sources = page.evaluate("[...document.querySelectorAll('[data-view=features] canvas')].map(c => c.toDataURL())")
    z = torch.from_numpy(lab.seen.maps["night"][1, 4].astype(np.float32))
    for source, part in zip(sources, (z, *split_by_band(z, lab.band)), strict=False):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"), float)
        assert np.abs(shown - pca_picture(part, lab.seen.limits[4])).max() <= 8  # of 255
    assert len(sources) == 4  # before, kept, removed, norms


@pytest.mark.browser
def test_two_handles_follow_the_mouse_and_stop_at_each_other(page):
    box = page.locator(".ct-low").bounding_box()
    at = lambda cut: (box["x"] + 8 + (box["width"] - 16) * (cut - .01) / 1.4, box["y"] + box["height"] / 2)
    page.mouse.move(*at(.7))
    page.mouse.down()
    page.mouse.move(*at(.9), steps=5)
    page.mouse.up()
    low, high = page.evaluate("lab.state.cuts")
    assert low == .2 and abs(high - .9) < .03
    page.mouse.move(*at(.2))
    page.mouse.down()
    page.mouse.move(*at(1.2), steps=5)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert page.evaluate("lab.state.cuts") == [high, high] and "must be below" in page.locator(".ct-about.ct-wrong").inner_text()
    assert changed(page, page.get_by_role("button", name="paper's equation").click)


@pytest.mark.browser
def test_a_drag_never_queues_frames(page):
    "Hundreds of moves within one frame are drawn once."
    drawn = page.evaluate("""async () => {
        let n = 0;
        const watch = new MutationObserver(() => n++);
        watch.observe(document.querySelector('[data-view=curves] svg'), { childList: true, subtree: true, attributes: true });
        for (let i = 0; i < 300; i++) lab.set({ cuts: [.1 + i / 1000, .7] });
        await new Promise(done => setTimeout(done, 300));
        watch.disconnect();
        return n;
    }""")
    assert 1 <= drawn <= 3 and page.evaluate("lab.state.cuts[0]") == pytest.approx(.399)


NUMBER = "[data-view=zones] svg text[fill=black], [data-view=zones] svg text[fill=white]"


@pytest.mark.browser
def test_controls_move_figures(page):
    first = ("curves", "plane", "zones")
    assert max(b["bottom"] for name in first for b in boxes(page, f"[data-view={name}] .ct-body")) <= 900
    assert max(b["right"] for b in boxes(page, ".ct-card, header")) <= 1400
    page.focus(".ct-high")
    assert changed(page, lambda: page.keyboard.press("ArrowLeft")) >= {"curves", "plane", "zones", "features", "difference"}
    assert "0.20 – 0.69" in page.locator("[data-of=cuts] output").inner_text()
    page.focus("[data-of=layer] input")
    moved = changed(page, lambda: page.keyboard.press("ArrowRight"))
    assert moved >= {"curves", "zones", "features", "difference", "coefficient"} and "plane" not in moved
    assert "block 5" in page.locator("[data-view=curves] h2").text_content()
    assert changed(page, page.get_by_role("button", name="fog", exact=True).click) >= {"curves", "zones", "coefficient"}
    click = lambda: page.locator(NUMBER).first.click(force=True)  # block 0 of the first domain
    assert changed(page, click) >= {"curves", "zones", "features", "difference"}
    assert page.evaluate("[lab.state.domain, lab.state.layer]") == ["clear", 0]
    plane = page.locator("[data-view=difference] svg")
    assert "coefficient" in changed(page, lambda: plane.click(position=dict(x=180, y=100)))
    assert page.evaluate("lab.state.coefficient[0] > 0 && lab.state.coefficient[1] > 0")
    for name, option in (("scale", "share"), ("cells", "change to reference"), ("filter", "butterworth"), ("domain", "fog")):
        assert changed(page, lambda: page.select_option(f"[data-of={name}] select", option)), name
    assert page.locator("[data-of=order]").is_visible() and "in clear" in page.locator("[data-view=zones] .ct-sub").text_content()
    page.get_by_role("button", name="paper's figure").click()
    assert page.evaluate("[lab.state.filter, ...lab.state.cuts]") == ["gaussian", .4, .6]
    assert "features" in figures(page)
    page.get_by_role("button", name="features", exact=True).click()
    page.wait_for_timeout(300)
    assert "features" not in figures(page)


@pytest.mark.browser
def test_everything_answers_to_a_keyboard(page):
    "Arrow keys move through cells and coefficients; the focus is visible; every focusable element has a name."
    page.evaluate("lab.set({ domain: 'fog', layer: 3, coefficient: [2, 2] })")
    page.wait_for_timeout(200)
    page.focus("[data-view=zones] svg")
    for key in ("ArrowRight", "ArrowRight", "ArrowUp"): page.keyboard.press(key)
    assert page.evaluate("[lab.state.domain, lab.state.layer]") == ["clear", 5]
    page.focus("[data-view=difference] svg")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("lab.state.coefficient") == [3, 2]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.evaluate("document.activeElement.blur()")
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("(e => [e.className.baseVal ?? e.className, e.tagName, getComputedStyle(e).outlineStyle])(document.activeElement)"))
    seen = [one for one in seen if one[1] != "BODY"]  # where one round ends
    assert {tag for _, tag, _ in seen} >= {"BUTTON", "INPUT", "SELECT", "svg"} and {outline for _, _, outline in seen} == {"solid"}, seen
    nameless = page.evaluate("""[...document.querySelectorAll('button, input, select, [tabindex]')].filter(e =>
        !(e.getAttribute('aria-label') || e.textContent.trim() || e.closest('label')?.textContent.trim())).length""")
    assert nameless == 0
    assert "Energy removed" in page.get_attribute("[data-view=zones] svg", "aria-label")


@pytest.mark.browser
def test_what_is_not_possible_is_explained(page):
    "The last domain stays; cut-offs that are not allowed, and a model without a head."
    page.evaluate("lab.set({ domains: ['fog'] })")
    page.wait_for_timeout(100)
    page.get_by_role("button", name="fog", exact=True).click()
    assert page.evaluate("lab.state.domains") == ["fog"]
    before = page.evaluate("lab.gain()")
    page.evaluate("lab.set({ filter: 'piecewise', cuts: [1.1, 1.2] })")
    assert page.locator(".ct-about.ct-wrong").inner_text() == "The lower cut-off must be below 1, not 1.1." and page.evaluate("lab.gain()") == before
    page.evaluate("lab.set({ filter: 'dog', cuts: [.2, .7] })")
    assert "coefficients" in page.locator(".ct-about:not(.ct-wrong)").inner_text()
    page.evaluate("lab.set({ views: ['cause'] })")
    page.wait_for_timeout(300)
    assert "causal-tune train" in page.locator("[data-view=cause] .ct-sub").inner_text() and not page.locator("[data-view=map]").is_visible()


@pytest.mark.browser
def test_wide_and_narrow_in_both_themes(page):
    for width, scheme in ((390, "light"), (900, "dark"), (2000, "light"), (390, "dark")):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(dict(width=width, height=900))
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        bodies, drawn = boxes(page, ".ct-card .ct-body"), boxes(page, ".ct-card .ct-body > svg")
        assert all(d["right"] <= b["right"] + 1 for b, d in zip(bodies, drawn))
        tools, heads = boxes(page, ".ct-card .ct-tools"), boxes(page, ".ct-card .ct-titles")
        assert all(t["height"] < 24 and t["left"] >= h["right"] - 1 for t, h in zip(tools, heads)), "SVG and PNG stay in one line beside the title"
        assert page.evaluate("document.querySelector('.ct-lab').dataset.theme") == scheme
        ink = page.evaluate("getComputedStyle(document.querySelector('[data-view=curves] text')).color")
        assert ink == ("rgb(228, 231, 235)" if scheme == "dark" else "rgb(28, 30, 33)")
    page.emulate_media(color_scheme="light")


@pytest.mark.browser
def test_a_view_can_be_linked_to(chromium, file, page):
    "The address holds what differs from the page's first state; an address with other things in it is read as far as it fits."
    page.evaluate("lab.set({ layer: 2, domains: ['fog'] })")
    page.wait_for_timeout(300)
    address = page.evaluate("location.href")
    assert "#" in address
    other = chromium.new_page()
    other.goto(address)
    other.wait_for_selector("body[data-ready]")
    assert other.evaluate("[lab.state.layer, lab.state.domains]") == [2, ["fog"]]
    wrong = '#{"layer":99,"domain":"<b>","cuts":[0.3,"x"],"domains":[],"__proto__":1,"scale":"share"}'
    other.goto("about:blank")
    other.goto(file.as_uri() + wrong)
    other.wait_for_selector("body[data-ready]")
    assert other.evaluate("[lab.state.layer, lab.state.domain, lab.state.cuts, lab.state.scale]") == [4, "night", [.2, .7], "share"]
    other.close()


@pytest.mark.browser
def test_figures_and_words_leave_the_page(page, lab):
    "As SVG and PNG from the buttons of a card; the summary says what Python's table says."
    for kind, head in (("SVG", b"<svg"), ("PNG", b"\x89PNG")):
        page.hover("[data-view=zones]")
        with page.expect_download() as got: page.locator("[data-view=zones]").get_by_text(kind, exact=True).click()
        assert got.value.suggested_filename == f"frequency_lab_zones.{kind.lower()}"
        assert open(got.value.path(), "rb").read().startswith(head)
    svg = page.evaluate("lab.saved(lab.cards.zones, 'SVG')")
    assert "Energy%20removed" in svg and "%3Cimage" in svg
    page.evaluate("lab.set({ layer: 4, filter: 'dog', cuts: [.2, .7] })")
    from causal_tune.spectra.energy import suppressed_table
    table = suppressed_table(lab.seen.spectra, lab.band).set_index(["domain", "layer"]).suppressed
    lines = page.evaluate("lab.words()")
    for domain in DOMAINS:
        said = next(line for line in lines if line.startswith(f"{domain}: "))
        assert f"{domain}: {100 * table[domain, 4]:.0f}% of the energy" in said


@pytest.fixture(scope="module")
def patched(tmp_path_factory):
    "A lab with a head, one example and one column of its map."
    from causal_tune import FrequencyLab
    from causal_tune.data.datasets import load_dataset
    from causal_tune.models.segmentor import create_segmentor
    data = {d: load_dataset(f"toyscapes:domain={d},split=val,n=1") for d in ("clear", "night")}
    head = create_segmentor("toy_vit", head="linear", num_classes=19, seed=0)
    lab = FrequencyLab(head, data, size=(48, 64), state=dict(views=["cause"], layer=7))
    next(filter(None, lab.cause.fill(lab.data, lab.patch_setting())))
    return lab.export_html(tmp_path_factory.mktemp("patched") / "lab.html")


@pytest.mark.browser
def test_the_page_holds_the_map_and_the_example(chromium, patched):
    "Pictures with a key, cells by keyboard and mouse, names for a screen reader; missing results are marked."
    page, errors = chromium.new_page(viewport=dict(width=1400, height=900), color_scheme="dark"), []
    page.on("console", lambda m: errors.append(m.text))
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto(patched.as_uri())
    page.wait_for_selector("[data-view=cause] img")
    assert page.locator("[data-view=cause] img").count() == 6 and page.locator("[data-view=cause] .ct-key i").count() == 3
    assert "in alone" in page.get_attribute("[data-view=map] svg", "aria-label") and "night costs" in page.locator("[data-view=map] .ct-sub").first.inner_text()
    page.focus("[data-view=map] svg")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(400)
    assert page.evaluate("[lab.state.layer, lab.state.patch_band]") == [7, 3]
    assert "block 7, 0.2" in page.locator("[data-view=cause] h2").inner_text() and "not computed" in page.locator("[data-view=cause] .ct-sub").inner_text()
    page.evaluate("lab.patched({ setting: { disturbed: 'night', severity: 0, twin: 'clear', patch_mode: 'stream only' }, models: [], text: 'stopped before its end' })")
    page.select_option("[data-of=patch_mode] select", "stream only")
    page.wait_for_timeout(500)
    assert page.locator("[data-view=map] .ct-titles .ct-sub").inner_text().startswith("stopped before its first column: nothing was computed yet")
    assert page.locator("[data-view=map] .ct-sub[role=status]").inner_text() == ""
    page.set_viewport_size(dict(width=390, height=900))
    page.wait_for_timeout(500)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert all(d["right"] <= b["right"] + 1 for b, d in zip(boxes(page, ".ct-card .ct-body"), boxes(page, ".ct-card .ct-body > svg")))
    assert errors == []
    page.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    "Two models of a pyramid side by side, one of them with filters that were learned."
    import timm, torch
    from causal_tune import FrequencyLab
    from causal_tune.models.segmentor import create_segmentor
    def model(adapter, **options):
        torch.manual_seed(0)
        return create_segmentor(timm.create_model("resnet18", num_classes=0), adapter, "linear", 19, **options).eval()
    models = dict(before=model("none"), after=model("causal_tune", band="learnable none none learnable:low=.12,high=.52"))
    images = {name: torch.randint(0, 255, (1, 3, 96, 128), dtype=torch.uint8) for name in DOMAINS}
    return FrequencyLab(models, images, stage=3).export_html(tmp_path_factory.mktemp("pair") / "lab.html")


@pytest.mark.browser
def test_two_models_of_a_stage_side_by_side(chromium, pair):
    "Every line has its name and a colour of its own, and nothing is cut off."
    for width in (390, 1400): check_pair(chromium.new_page(viewport=dict(width=width, height=900)), pair, width)


def check_pair(page, pair, width):
    page.goto(pair.as_uri())
    page.wait_for_selector("body[data-ready]")
    page.wait_for_timeout(500)
    def texts(view): return page.evaluate("v => [...document.querySelectorAll(`[data-view=${v}] svg text`)].map(t => t.textContent)", view)
    assert {f"{model} · {name}" for model in ("before", "after") for name in DOMAINS} <= set(texts("curves"))
    assert page.locator("[data-view=curves] svg path[stroke-width='1.5'][stroke-dasharray='6 5']").count() == 3  # the second model's, in the legend
    colors = page.evaluate("[...document.querySelectorAll('[data-view=curves] svg path[stroke-width=\"1.5\"]')].map(p => p.getAttribute('stroke'))")
    assert len({c for c in colors if c.startswith("rgb")}) == 6  # two models share no colour
    assert "of stage 3 (of 0 to 3)" in page.locator(".ct-about").inner_text() and "block 7" in page.locator("[data-view=curves] h2").inner_text()
    assert "at stage 3 alone" in page.locator("[data-view=segmentation] .ct-note").inner_text()
    outside = page.evaluate("""[...document.querySelectorAll('.ct-body > svg')].flatMap(svg => {
        const s = svg.getBoundingClientRect();
        return [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()])
            .filter(([, r]) => r.width && (r.left < s.left - 1 || r.right > s.right + 1 || r.bottom > s.bottom + 1)).map(([text]) => text);
    })""")
    assert outside == [] and page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


@pytest.mark.browser
def test_hostile_names_are_text(chromium, tmp_path):
    from causal_tune import FrequencyLab
    rng = np.random.default_rng(0)
    images = {name: [rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)] for name in HOSTILE}
    file = FrequencyLab({HOSTILE[1]: "toy_vit", "b": "toy_vit"}, images).export_html(tmp_path / "lab.html")
    page, errors = chromium.new_page(viewport=dict(width=1400, height=900)), []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]")
    page.wait_for_timeout(500)
    for name in HOSTILE:
        page.evaluate("name => lab.set({ domain: name, reference: name })", name)
        page.wait_for_timeout(200)
        svg = page.evaluate("lab.saved(lab.cards.difference, 'SVG')")
        assert "hacked" not in page.evaluate("Object.keys(window).join()")
        page.evaluate("uri => new Promise((done, no) => Object.assign(new Image(), { src: uri, onload: done, onerror: no }))", svg)
    assert errors == [] and page.evaluate("document.images.length") == page.locator(".ct-picture img").count()
    assert page.evaluate("[...document.querySelectorAll('.ct-chip')].map(c => c.textContent)")[:5] == HOSTILE
    assert page.evaluate("document.documentElement.scrollWidth") <= 1400
    page.close()


@pytest.mark.browser
def test_the_theme_is_the_hosts(page):
    "JupyterLab, Colab and VS Code each signal a dark theme in their own way, and may switch it."
    for host, name, light, dark in (("body", "data-jp-theme-light", "true", "false"), ("html", "theme", "light", "dark"),
                                    ("body", "data-vscode-theme-kind", "vscode-light", "vscode-dark")):
        node = f"document.querySelector('{host}')"
        for theme, said in (("dark", dark), ("light", light)):
            page.evaluate(f"{node}.setAttribute('{name}', '{said}')")
            page.wait_for_timeout(200)
            assert page.evaluate("document.querySelector('.ct-lab').dataset.theme") == theme, name
        page.evaluate(f"{node}.removeAttribute('{name}')")


@pytest.mark.browser
def test_printed_without_controls(page):
    page.emulate_media(media="print")
    for control in ("select", "input", "button"): assert page.locator(f".ct-lab {control}").evaluate_all("all => all.every(e => !e.offsetWidth)"), control
    assert page.locator("[data-view=curves] svg").is_visible() and page.locator("[data-view=words] p").first.is_visible()
    page.emulate_media(media="screen")


@pytest.mark.browser
def test_paper_is_white_and_holds_figures_whole(page):
    "What is 1,400 pixels wide and dark on a screen."
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(dict(width=1400, height=900))
    page.wait_for_timeout(300)
    page.emulate_media(media="print")
    page.set_viewport_size(dict(width=718, height=1000))  # A4 without its margins
    page.wait_for_timeout(300)
    for node in ("html", "body", ".ct-lab", ".ct-card"): assert page.evaluate(f"getComputedStyle(document.querySelector('{node}')).backgroundColor") == "rgb(255, 255, 255)", node
    assert max(b["right"] for b in boxes(page, ".ct-card")) <= 718 and page.evaluate("document.querySelector('.ct-lab').dataset.theme") == "light"
    shown = boxes(page, ".ct-body > svg")
    texts = page.locator(".ct-body > svg text").evaluate_all("all => all.map(e => parseFloat(getComputedStyle(e).fontSize) * e.ownerSVGElement.getScreenCTM().a)")
    assert min(texts) > 10 # 7.5 points
    assert all(d["right"] <= b["right"] + 1 for b, d in zip(boxes(page, ".ct-card .ct-body"), shown))
    page.emulate_media(media="screen", color_scheme="light")
    page.set_viewport_size(dict(width=1400, height=900))


@pytest.mark.browser
def test_nothing_moves_by_itself_where_motion_is_not_wanted(page):
    def durations(): return page.evaluate("[...new Set([...document.querySelectorAll('.ct-lab *')].map(e => getComputedStyle(e).transitionDuration))]")
    page.emulate_media(reduced_motion="reduce")
    assert durations() == ["0s"] and page.evaluate("document.getAnimations().length") == 0
    page.emulate_media(reduced_motion="no-preference")
    assert sorted(durations()) == ["0.15s", "0s"]
