"""The documentation as a site: `python docs/build.py [FOLDER]` gathers its pages, builds them with Sphinx and checks the result.

Chapters with their saved figures, the API, the benchmark's tables, and the lab as a page of its own. It stops at a broken
link, at a public name without a description, and at a figure that no browser can show.
"""
import base64, json, re, shutil, subprocess, sys
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit
import pandas as pd
import plotly.io as pio
from plotly.offline import get_plotlyjs
from api import modules, page

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGES = ("docs/command_line.md", "docs/coming_from.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "data/README.md", "checkpoints/README.md")
FOLDERS = {"01_spectra": "Spectra", "02_adapters": "Adapters", "03_data": "Data", "04_models": "Models", "05_training": "Training",
           "06_research": "Research", "07_compare": "Comparisons", "08_lab": "The lab", "09_published": "Published weights", "10_cli": "Command line",
           "11_toyscapes": "Appendix: Toyscapes", "12_core": "Appendix: names, files, environment"}
TUTORIALS = ("first_look", "your_images", "own_data", "one_domain", "own_adapter", "equations", "published_checkpoint", "cluster") # as they are read
PLOTLY = "application/vnd.plotly.v1+json"


def chapters(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("*.ipynb"))


def tutorials(folder: Path) -> list[Path]: # those that are there, in the order a newcomer takes
    return [path for name in TUTORIALS if (path := folder / f"{name}.ipynb").exists()]


def without_widgets(outputs: list[dict]) -> list[dict]:
    "Outputs without progress bars and controls, which need a kernel."
    widget = "application/vnd.jupyter.widget-view+json"
    return [o for o in outputs if widget not in o.get("data", {}) or set(o["data"]) & {"image/png", "text/html"}]


def readable_table(html: str) -> str:
    "A pandas table with a dash for missing values and zeros without a sign."
    html = re.sub(r"(<td[^>]*>)\s*(?:NaN|nan|None|&lt;NA&gt;)\s*(</td>)", r"\1–\2", html)
    return re.sub(r"(<td[^>]*>)\s*[-−](0(?:\.0*)?)\s*(</td>)", r"\1\2\3", html)


def with_readable_table(output: dict) -> dict:
    html = "".join(output.get("data", {}).get("text/html", ""))
    return output | dict(data=output["data"] | {"text/html": readable_table(html)}) if "<table" in html else output


def with_html(output: dict) -> dict:
    "An interactive figure as a piece of page."
    data = output.get("data", {})
    if PLOTLY not in data or "image/png" in data: return output
    shown = pio.from_json(json.dumps(data[PLOTLY]), skip_invalid=True).update_layout(width=None, autosize=True) # as wide as the page
    figure = pio.to_html(shown, full_html=False, include_plotlyjs="../../_static/plotly.min.js", config=dict(responsive=True))
    return output | dict(data={"text/html": figure})


def readable(cell: dict) -> dict | None: # None for a cell that says nothing to a reader
    "A cell without nbdev's directives, and with outputs that a page can show."
    if cell["cell_type"] != "code": return cell
    lines = "".join(cell["source"]).split("\n")
    directives = [line for line in lines if line.startswith("#|")]
    if any(line.split()[1] in ("default_exp", "hide") for line in directives): return None
    source = "\n".join(line for line in lines if line not in directives)
    return cell | dict(source=source, outputs=[with_readable_table(with_html(o)) for o in without_widgets(cell["outputs"])])


def collapse_checks(cells: list[dict]) -> list[dict]:
    "Collapse imports and the section Checks: they are for maintainers."
    checks, out = False, []
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and text.startswith("## "): checks = text.startswith("## Checks")
        imports = cell["cell_type"] == "code" and text.startswith("from __future__") and "\ndef " not in text
        tag = "hide-cell" if checks else "hide-input" if imports else None
        out.append(cell | dict(metadata=cell["metadata"] | dict(tags=[tag])) if tag and cell["cell_type"] == "code" else cell)
    return out


def stage_notebook(source: Path, target: Path) -> None:
    notebook = json.loads(source.read_text(encoding="utf-8"))
    notebook["cells"] = collapse_checks([cell for cell in map(readable, notebook["cells"]) if cell])
    notebook["metadata"].setdefault("kernelspec", dict(name="python3", display_name="Python 3", language="python"))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook), encoding="utf-8")


def toctree(caption: str, entries: list[str]) -> str:
    return "\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```", ""])


def table_of(path: Path) -> list[str]: # pieces of Markdown
    "A table, with the line that made it where the file says so."
    with open(path, encoding="utf-8") as file: first = file.readline()
    noted = first.startswith("#")
    table = pd.read_csv(path, skiprows=int(noted), keep_default_na=False)
    said = [f"`{first[1:].strip()}`"] if noted else []
    rest = [f"The first 40 of {len(table)} rows."] if len(table) > 40 else []
    html = readable_table(table.head(40).map(short_number).to_html(index=False, border=0, classes="docutils"))
    return [f"## {path.stem}", *said, f'<div class="table-wrapper">{html}</div>', *rest]


def short_number(value): # four digits are enough to read; the file has them all
    return f"{value:.4g}" if isinstance(value, float) else value


def stage(source: Path) -> None:
    "Copy everything that becomes a page to its place in the repository, so that links between files remain valid."
    shutil.copytree(ROOT / "nbs", source / "nbs", ignore=shutil.ignore_patterns("*.ipynb", ".ipynb_checkpoints"))
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        if ".ipynb_checkpoints" not in path.parts: stage_notebook(path, source / path.relative_to(ROOT))
    for name in PAGES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists(): shutil.copy(ROOT / name, source / name)
    shutil.copy(ROOT / "README.md", source / "README.md")
    (source / "_static").mkdir()
    shutil.copy(HERE / "style.css", source / "_static")
    (source / "_static" / "plotly.min.js").write_text(get_plotlyjs(), encoding="utf-8")


def write_pages(source: Path) -> list[str]: # public names without a word
    "Write the generated pages: start, tables, API, lab."
    results = source / "nbs" / "experiments" / "results"
    tables = [piece for path in sorted(results.glob("*.csv")) for piece in table_of(path)]
    (source / "tables.md").write_text("\n\n".join(["# Tables", "Result tables of the experiments.", *tables]), encoding="utf-8")
    (source / "lab-page.md").write_text(LAB, encoding="utf-8")
    homes = {json_module(p): p.relative_to(source) for p in (source / "nbs").rglob("[0-9][0-9]_*.ipynb")}
    (source / "api").mkdir()
    pages = [page(name, f"../{homes[name].as_posix()}") for name in modules()]
    for p in pages: (source / "api" / f"{p.module}.md").write_text(p.text, encoding="utf-8")
    (source / "index.md").write_text(start_page(source), encoding="utf-8")
    return [name for p in pages for name in p.silent]


def json_module(path: Path) -> str:
    "The module that a chapter exports to: its folder's name and its own, without their numbers."
    return f"{path.parent.name.partition('_')[2]}.{path.stem.partition('_')[2]}"


LAB = """# The frequency lab in the browser

The page below is what `causal-tune lab --export lab.html` writes: streets of the toy world in three weathers, with features of
`toy_vit`. It needs no Python and no network. <a href="lab.html">Open it alone</a>.

<iframe class="lab" src="lab.html" title="The frequency lab"></iframe>
"""


START = """# causal_tune

<p class="lead">See which frequencies of a vision foundation model belong to the scene and which to the weather, and fine-tune a
segmentor that holds up in domains it never saw.</p>

```{image} nbs/images/frequency_lab.jpg
:alt: The frequency lab on DINOv2-S with a linear head and Toyscapes in clear weather, fog and at night: what a filter keeps, the energy it removes by block and domain, what one band of the clear street repairs at night
:target: lab.html
:class: hero
```

<div class="cards three">
<a class="card" href="lab-page.html"><b>Look</b><span>Move a filter over the features of a small model, here in the browser.</span></a>
<a class="card" href="nbs/tutorials/first_look.html"><b>Learn</b><span>Eight tutorials, from a first spectrum to a cluster;
then a chapter for every part of the package.</span></a>
<a class="card" href="README.html"><b>Use</b><span>Install it, run the demo, train and evaluate an adapter on your own images.</span></a>
</div>

## Tutorials

<div class="cards">
CARDS
</div>

## Further

- [Which numbers can be compared](nbs/07_compare/01_report.ipynb), and what the protocols behind them are
- [The equations of the paper beside the code](nbs/tutorials/equations.ipynb)
- [Coming from Rein, mmsegmentation or transformers](docs/coming_from.md)
- [Tables of all experiments](tables.md), [the command line](docs/command_line.md), [changes](CHANGELOG.md)
"""


def card(path: Path, site: Path) -> str: # HTML; site: where the pages are staged
    "A tutorial: its title, its question, and its first figure where it has one."
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "".join(cells[0]["source"])
    title = text.split("\n")[0].lstrip("# ")
    question = " ".join(line.lstrip("> ") for line in text.split("\n") if line.startswith(">"))
    pictures = [o["data"]["image/png"] for c in cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    image = ""
    if pictures:
        (site / "_static" / f"{path.stem}.png").write_bytes(base64.b64decode("".join(pictures[0])))
        image = f'<img alt="" src="_static/{path.stem}.png">'
    return f'<a class="card" href="nbs/tutorials/{path.stem}.html">{image}<b>{escape(title)}</b><span>{escape(question.replace("`", ""))}</span></a>'


def start_page(source: Path) -> str:
    "A picture, three ways in, the tutorials, and the way to everything else."
    trees = [toctree(FOLDERS[folder.name], [p.relative_to(source).as_posix() for p in chapters(folder)])
             for folder in sorted((source / "nbs").iterdir()) if folder.name in FOLDERS]
    lessons = tutorials(source / "nbs" / "tutorials")
    experiments = [p.relative_to(source).as_posix() for p in chapters(source / "nbs" / "experiments")]
    about = [name for name in PAGES if (source / name).exists()]
    page = START.replace("CARDS", "\n".join(card(path, source) for path in lessons))
    start = [toctree("Start", ["Install and first steps <README>", "lab-page"]), toctree("Tutorials", [p.relative_to(source).as_posix() for p in lessons])]
    end = [toctree("Experiments", [*experiments, "tables"]), toctree("API", [f"api/{name}" for name in modules()]), toctree("About", about)]
    return "\n".join([page, *start, *trees, *end])


def lab_page(target: Path) -> None:
    "A small lab as a page of its own."
    from causal_tune.lab.launch import open_lab
    open_lab(n=2).export_html(target)


class Links(HTMLParser):
    "Links of a page and its link targets."
    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors = [], {""}
        self.feed(path.read_text(encoding="utf-8"))
    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found[k] for k in ("id", "name") if found.get(k)}
        self.links += [found[k] for k in ("href", "src") if found.get(k) and tag != "link"]


def broken_links(site: Path) -> list[str]: # "page: link"
    "Links inside the site that lead nowhere; those to other sites are not followed."
    pages = {path.resolve(): Links(path) for path in site.rglob("*.html") if path.name != "lab.html"}
    broken = []
    for path, content in pages.items():
        for link in content.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc: continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            lost = not target.exists() or target in pages and unquote(parts.fragment) not in pages[target].anchors
            if lost: broken.append(f"{path.relative_to(site.resolve())}: {link}")
    return broken


def build(out: Path) -> list[str]: # what is wrong
    shutil.rmtree(out, ignore_errors=True)
    source, site = out / "source", out / "html"
    source.mkdir(parents=True)
    stage(source)
    wrong = [f"no word about {name}" for name in write_pages(source)]
    words = ["--quiet", "--fail-on-warning", "--keep-going", "-j", "auto", "-c", str(HERE), "-D", f"html_static_path={source / '_static'}",
             str(source), str(site)]
    if subprocess.call([sys.executable, "-m", "sphinx", *words]): wrong.append("Sphinx warned, see above")
    lab_page(site / "lab.html")
    return wrong + [f"broken link in {line}" for line in broken_links(site)]


if __name__ == "__main__":
    out = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "_docs").resolve()
    wrong = build(out)
    print(*wrong, sep="\n")
    print(f"{out / 'html' / 'index.html'}: {len(list((out / 'html').rglob('*.html')))} pages, {len(wrong)} faults")
    sys.exit(bool(wrong))
