"""The lab in one HTML file, opened from disk in a real Chromium: its numbers are those of Python, its controls work."""
import re
import numpy as np
import pytest
from browser import CHROMIUM, FLAGS, boxes

DOMAINS = ("clear", "fog", "night")


@pytest.fixture(scope="module")
def lab():
    from causal_tune import FrequencyLab
    from causal_tune.datasets import load_dataset
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
    "The file, opened; whatever the tests do, there are no errors, and nothing but the file is asked for."
    page, errors, asked = chromium.new_page(viewport=dict(width=1400, height=900)), [], set()
    page.on("console", lambda m: errors.append(m.text))
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("request", lambda r: asked.add(r.url))
    page.goto(file.as_uri())
    page.wait_for_selector("body[data-ready]", timeout=60_000)
    page.evaluate("window.initial = structuredClone(lab.S)")
    yield page
    assert errors == [] and {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
    page.close()


@pytest.fixture
def page(opened):
    opened.evaluate("lab.set(structuredClone(initial))")
    opened.wait_for_timeout(300)
    return opened


def figures(page):
    return page.evaluate("Object.fromEntries([...document.querySelectorAll('[id^=view-]')].map(f => [f.id.slice(5), "
                         "[...f.querySelectorAll('.main-svg')].map(s => s.outerHTML.replace(/[0-9a-f]{6}-?(xy|clip)?/g, '')).join()]))")


def changed(page, act):
    before = figures(page)
    act()
    page.wait_for_timeout(500)
    return {name for name, now in figures(page).items() if now != before[name]}


def test_one_small_file(file):
    text = file.read_text(encoding="utf-8")
    assert file.stat().st_size <= 5_000_000
    outside = re.sub(r'<script type="text/plain" id="plotly">.*?</script>', "", text, flags=re.S)
    assert not re.search(r'(src|href)="(?!data:)', outside) and "Energies are kept with 16 bits" in outside


def test_a_folder_is_refused(lab, tmp_path):
    with pytest.raises(ValueError, match="is a folder; give the name of a file"): lab.export_html(tmp_path)


def numbers(page, **state): # gain, shares, radial curve of a state
    code = """s => {
        lab.set(s);
        return [[...lab.gain()], lab.shares(), lab.curve(), lab.profile(lab.energyOf(s.domain, s.layer))];
    }"""
    return page.evaluate(code, dict(domain="night", layer=4, order=2, keep_dc=False) | state)


@pytest.mark.browser
@pytest.mark.parametrize("keep_dc", [False, True])
@pytest.mark.parametrize("cuts", [(.2, .7), (.13, .42)])
@pytest.mark.parametrize("name", ["dog", "gaussian", "piecewise", "ideal", "butterworth", "learnable", "none"])
def test_numbers_are_those_of_python(page, lab, name, cuts, keep_dc):
    from causal_tune.figures import gain_curve
    from causal_tune.frequency import by_zone, suppressed
    from causal_tune.lab import band_of
    band, energy = band_of(name, cuts, 3, keep_dc), lab.seen.spectra.energy
    gain, shares, curve, profile = numbers(page, filter=name, cuts=list(cuts), order=3, keep_dc=keep_dc)
    np.testing.assert_allclose(np.reshape(gain, lab.grid), band(*lab.grid).detach().numpy(), atol=2e-6)
    ours = np.stack([suppressed(energy, band), *by_zone(energy, band).values()])
    np.testing.assert_allclose(shares, ours, atol=2e-4)
    r, y = gain_curve(band)
    np.testing.assert_allclose(curve["x"], r, atol=1e-6)
    near = np.min(np.abs(r[:, None] - np.array(cuts)), 1) < 1e-6  # where an ideal filter jumps, rounding decides
    np.testing.assert_allclose(np.array(curve["y"])[~near], y[~near], atol=3e-6)
    np.testing.assert_allclose(profile, lab.rings.energy[2, 4], rtol=2e-4)


@pytest.mark.browser
def test_differences_are_those_of_python(page, lab):
    from causal_tune.frequency import relative_change
    from causal_tune.lab import without_dc
    a, b = lab.seen.spectra.energy[2, 5], lab.seen.spectra.energy[0, 5]
    page.evaluate("lab.set({ domain: 'night', reference: 'clear', layer: 5 })")
    decibels, points = (np.reshape(page.evaluate(f"[...lab.change({share})]"), lab.grid) for share in ("false", "true"))
    np.testing.assert_allclose(decibels, relative_change(a, b), atol=2e-3)
    np.testing.assert_allclose(points, 100 * (without_dc(a) - without_dc(b)), atol=.01)


@pytest.mark.browser
def test_kept_features_are_those_of_python(page, lab):
    import base64, io, torch
    from PIL import Image
    from causal_tune.bands import split
    from causal_tune.figures import pca_picture
    page.evaluate("lab.set({ filter: 'dog', cuts: [.2, .7], domain: 'night', layer: 4, image: 1 })")
    page.wait_for_timeout(400)
    sources = page.evaluate("document.getElementById('view-features').data.filter(t => t.type === 'image').map(t => t.source)")
    z = torch.from_numpy(lab.seen.maps["night"][1, 4].astype(np.float32))
    for source, part in zip(sources[1:], (z, *split(z, lab.band))):
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))).convert("RGB"), float)
        assert np.abs(shown - pca_picture(part, lab.seen.limits[4])).max() <= 8  # of 255


@pytest.mark.browser
def test_two_handles_follow_the_mouse_and_stop_at_each_other(page):
    box = page.locator("#low").bounding_box()
    at = lambda cut: (box["x"] + 8 + (box["width"] - 16) * (cut - .01) / 1.4, box["y"] + box["height"] / 2)
    page.mouse.move(*at(.7))
    page.mouse.down()
    page.mouse.move(*at(.9), steps=5)
    page.mouse.up()
    low, high = page.evaluate("lab.S.cuts")
    assert low == .2 and abs(high - .9) < .03
    page.mouse.move(*at(.2))
    page.mouse.down()
    page.mouse.move(*at(1.2), steps=5)
    page.mouse.up()
    assert page.evaluate("lab.S.cuts") == [high, high] and "Cut-offs need" in page.locator("#about.wrong").inner_text()
    assert changed(page, page.get_by_role("button", name="paper's equation").click)


@pytest.mark.browser
def test_controls_move_figures(page):
    assert max(b["bottom"] for b in boxes(page, ".ct-card")[:3]) <= 900
    assert max(b["right"] for b in boxes(page, ".ct-card, header")) <= 1400
    page.focus("#high")
    assert changed(page, lambda: page.keyboard.press("ArrowLeft")) >= {"curves", "plane", "zones", "features", "difference"}
    assert "0.20 – 0.69" in page.locator("output[data-of=cuts]").inner_text()
    page.focus("#layer")
    moved = changed(page, lambda: page.keyboard.press("ArrowRight"))
    assert moved >= {"curves", "zones", "features", "difference", "coefficient"} and "plane" not in moved
    assert "block 5" in page.locator("#view-curves .gtitle").text_content()
    assert changed(page, page.get_by_role("button", name="fog", exact=True).click) >= {"curves", "zones", "coefficient"}
    cells = page.locator("#view-zones .nsewdrag").first
    size = cells.bounding_box()
    first = dict(x=size["width"] / 16, y=size["height"] / 22)  # block 0 of clear: 8 blocks, 4 panels of 2 rows with empty rows between
    assert changed(page, lambda: cells.click(position=first)) >= {"curves", "zones", "features", "difference"}
    assert page.evaluate("[lab.S.domain, lab.S.layer]") == ["clear", 0]
    plane = page.locator("#view-difference .nsewdrag").first
    assert "coefficient" in changed(page, lambda: plane.click(position=dict(x=100, y=60)))
    assert page.evaluate("lab.S.coefficient[0] > 0 && lab.S.coefficient[1] > 0")
    for select, option in (("#scale", "share"), ("#cells", "change to reference"), ("#filter", "butterworth"), ("#domain", "fog")):
        assert changed(page, lambda: page.select_option(select, option)), select
    assert page.locator("#order").is_visible() and page.locator("#view-zones .gtitle").text_content().endswith("in clear")
    page.get_by_role("button", name="paper's figure").click()
    assert page.evaluate("[lab.S.filter, ...lab.S.cuts]") == ["gaussian", .4, .6]


@pytest.mark.browser
def test_the_last_domain_stays_and_wrong_edges_are_explained(page):
    from causal_tune.lab import band_of
    page.evaluate("lab.set({ domains: ['fog'] })")
    page.get_by_role("button", name="fog", exact=True).click()
    assert page.evaluate("lab.S.domains") == ["fog"]
    before = page.evaluate("[...lab.gain()]")
    page.evaluate("lab.set({ filter: 'piecewise', cuts: [1.1, 1.2] })")
    with pytest.raises(ValueError) as said: band_of("piecewise", (1.1, 1.2))
    assert page.locator("#about.wrong").inner_text() == str(said.value) and page.evaluate("[...lab.gain()]") == before
    page.evaluate("lab.set({ filter: 'dog', cuts: [.2, .7] })")
    assert "coefficients" in page.locator("#about:not(.wrong)").inner_text()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(dict(width=900, height=900))
    page.wait_for_timeout(700)
    assert page.evaluate("document.documentElement.scrollWidth") <= 900
    cards, drawn = boxes(page, ".ct-card"), boxes(page, ".ct-card .plot-container")
    assert all(d["right"] <= c["right"] + 1 for c, d in zip(cards, drawn))
    tick = page.evaluate("getComputedStyle(document.querySelector('.xtick text')).fill")
    assert tick == ("rgb(221, 221, 221)" if scheme == "dark" else "rgb(34, 34, 34)")
