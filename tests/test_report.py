"""The report in a real browser: on a telephone, in the dark, with more names in a legend than fit into a line."""
import numpy as np
import pandas as pd
import pytest
from browser import CHROMIUM, FLAGS
from causal_tune.spectra.bands import DifferenceOfGaussians
from causal_tune.data.labels import CITYSCAPES
from causal_tune.research.figures import filter_curve
from causal_tune.compare.report import write_report

DOMAINS = "clear", "fog", "night", "rain", "snow"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    rng = np.random.default_rng(0)
    rows = [dict(adapter=a, seed=s, domain=d, miou=rng.random(), iou=dict(road=.5))
            for a in ("none", "rein") for s in range(2) for d in DOMAINS]
    gains = pd.DataFrame([dict(adapter="rein", domain=d, difference=.4, sd_over_seeds=.1, low=-.1, high=.9, p=.1, holm=.2) for d in DOMAINS])
    bands = {f"a filter of a long name, number {i}": DifferenceOfGaussians(low=.1 + .02 * i, high=.7) for i in range(7)}
    return write_report(tmp_path_factory.mktemp("report") / "r.html", "Adapters", "What was done. " * 20, rows, gains,
                        [("Filters", "They differ.", filter_curve(bands))], dict(words="x" * 200), CITYSCAPES)


@pytest.mark.browser
def test_it_can_be_read(page):
    for width in (390, 1200): can_be_read(page, width)


def can_be_read(page, width):
    from playwright.sync_api import sync_playwright
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport=dict(width=width, height=800), color_scheme="dark")
        tab.goto(page.as_uri())
        tab.wait_for_selector(".js-plotly-plot .legend")
        box = lambda selector: tab.locator(selector).first.bounding_box()
        assert tab.evaluate("document.documentElement.scrollWidth") == width, "nothing is beside the screen"
        assert box("caption")["x"] + box("caption")["width"] <= width
        legend, title = box(".js-plotly-plot .legend"), box("section:has(.legend) .title")
        assert title["y"] + title["height"] <= legend["y"], "a legend lies on its title"
        assert legend["x"] + legend["width"] <= width
        for card in (".card", ".scroll"):
            colour = tab.evaluate(f"getComputedStyle(document.querySelector('{card}')).backgroundColor")
            assert colour == "rgb(31, 34, 39)", card
        browser.close()
