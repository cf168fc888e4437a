"""The page of a training, opened from disk in a real Chromium: a slider replays it, in both themes and at both widths."""
import pytest
from browser import CHROMIUM, FLAGS, HOSTILE, figures


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    import causal_tune as ct
    from causal_tune.lab import watch
    from causal_tune.training.checkpoint import branch
    runs = tmp_path_factory.mktemp("runs")
    recipe = ct.get_recipe("demo", adapter="causal_tune", head="dpt:width=8", crop=(32, 48), num_tokens=4, iterations=4, batch_size=2, precision="no", snapshot_every=2,
                           train="toyscapes:domain=clear,split=train,n=2", targets=tuple(f"toyscapes:domain={d},split=test,n=1" for d in ("clear", "night")))
    ct.train(recipe, runs / "trunk")
    hostile = HOSTILE[1]
    ct.train(branch(runs / "trunk", 2, runs / hostile, adapter_lr=5.), runs / hostile)
    page = watch(runs, every=3600)
    assert [run["name"] for run in page._data["runs"]] == ["trunk", hostile]
    return page.export_html(tmp_path_factory.mktemp("page") / "watch.html")


@pytest.mark.browser
@pytest.mark.slow
def test_replay(file):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        for width, scheme in ((1400, "light"), (390, "dark")):
            page, errors, asked = browser.new_page(viewport=dict(width=width, height=900), color_scheme=scheme), [], set()
            page.on("console", lambda m: errors.append(m.text))
            page.on("pageerror", lambda e: errors.append(str(e)))
            page.on("request", lambda r: asked.add(r.url))
            page.goto(file.as_uri())
            slider = page.get_by_label("iteration", exact=True)
            assert page.locator(".ct-watch").get_attribute("data-theme") == scheme and slider.get_attribute("aria-valuetext") == "4"
            def changed(act):
                before = figures(page)
                act()
                page.wait_for_timeout(200)
                return {name for name, now in figures(page).items() if now != before.get(name)}
            assert changed(lambda: slider.press("ArrowLeft")) >= {"loss", "map", "frames"} and slider.get_attribute("aria-valuetext") == "2"
            assert changed(lambda: page.get_by_label("band").select_option("DC")) == {"map"}
            assert changed(lambda: page.get_by_role("button", name="trunk").click()) >= {"loss", "frames"} # one run less
            page.get_by_role("button", name="play the snapshots").click()
            page.wait_for_timeout(1700)
            assert slider.get_attribute("aria-valuetext") == "4" # played to the end
            assert "Branching needs Python" in page.locator("[data-view=branch]").inner_text()
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth && !window.hacked")
            assert all(page.evaluate("[...document.querySelectorAll('button, input, select')].map(e => e.getAttribute('aria-label') || e.innerText || e.closest('label')?.innerText)"))
            assert errors == [] and {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
            page.close()
        browser.close()
