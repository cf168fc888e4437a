"""The pages of the site that are generated from the code, and the search for broken links."""
import re, sys
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "docs"))
from api import argument_rows, entry, escaped, signature
from build import TUTORIALS, broken_links, collapse_checks, readable, tutorials, with_html


def test_an_entry_tells_arguments_and_defaults():
    def halve(x: float, # what is halved, in metres | feet
              times=1): # how often
        "Half of it, `x_1` times_2."
    assert signature(halve) == "halve(x, times)"
    assert argument_rows(halve)[0] == r"| `x` | `float` |  | what is halved, in metres \| feet |"
    assert argument_rows(halve)[1].startswith("| `times` | `int` | `1` | how often")
    text, told = entry(halve, 2)
    assert told and text.startswith("## `halve(x, times)`") and r"`x_1` times\_2" in text
    assert not entry(lambda x: x, 2)[1]
    assert escaped("a*b") == r"a\*b"


def test_tutorials_are_listed_in_their_order():
    "On the site and in the README, each with a link to where one goes next."
    folder = ROOT / "nbs" / "tutorials"
    there = [path.stem for path in tutorials(folder)]
    assert sorted(there) == sorted(path.stem for path in folder.glob("*.ipynb")), f"name it in docs/build.py: {TUTORIALS}"
    assert re.findall(r"^\| \[.*\]\(nbs/tutorials/(\w+)\.ipynb\) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M) == there
    for name in there: assert "## Where next" in (folder / f"{name}.ipynb").read_text(encoding="utf-8"), name


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text("<a href='b.html#here'></a><a href='b.html#gone'></a><img src='no.png'><a href='https://x.y'></a>")
    (tmp_path / "b.html").write_text("<p id='here'></p><a href='a.html'></a><a href='#'></a>")
    assert broken_links(tmp_path) == ["a.html: b.html#gone", "a.html: no.png"]


def test_what_a_reader_sees_of_a_cell():
    cell = dict(cell_type="code", source=["#| export\n", "x = 1"], outputs=[
        dict(data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}), dict(data={"text/plain": "1"})])
    seen = readable(cell)
    assert seen["source"] == "x = 1" and [o["data"] for o in seen["outputs"]] == [{"text/plain": "1"}]
    assert readable(dict(cell_type="code", source=["#| hide\n", "x"], outputs=[])) is None
    table = readable(dict(cell_type="code", source=["t"], outputs=[dict(data={"text/html": "<table><td>NaN</td><td>-0.00</td><td>-0.01</td></table>"})]))
    assert table["outputs"][0]["data"]["text/html"] == "<table><td>–</td><td>0.00</td><td>-0.01</td></table>"
    folded = collapse_checks([dict(cell_type=kind, source=[text], metadata={}) for kind, text in (
        ("code", "a"), ("markdown", "## Checks"), ("code", "b"), ("markdown", "## Exercises"), ("code", "c"))])
    assert [cell["metadata"].get("tags") for cell in folded] == [None, None, ["hide-cell"], None, None]
    figure = with_html(dict(data={"application/vnd.plotly.v1+json": dict(data=[dict(y=[1, 2])], layout={})}))
    assert "plotly.min.js" in figure["data"]["text/html"]


SITE = ROOT / "_docs" / "html"


@pytest.mark.browser
@pytest.mark.skipif(not SITE.exists(), reason="no site here; `make docs` builds it")
def test_every_page_opens_without_a_request_or_an_error():
    from playwright.sync_api import sync_playwright
    from browser import CHROMIUM, FLAGS
    faults, outside = [], set()
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        tab = browser.new_page(viewport=dict(width=390, height=844))
        tab.on("console", lambda m: faults.append((tab.url, m.text)) if m.type == "error" else None)
        tab.on("pageerror", lambda e: faults.append((tab.url, str(e))))
        tab.on("request", lambda r: outside.add(r.url) if not r.url.startswith(("file:", "data:", "blob:")) else None)
        for path in sorted(SITE.rglob("*.html")):
            tab.goto(path.as_uri(), wait_until="load")
            width = tab.evaluate("document.documentElement.scrollWidth")
            if width > 391 and path.name != "lab.html": faults.append((path.name, f"{width} pixels wide"))
        browser.close()
    assert faults == [] and outside == set()
