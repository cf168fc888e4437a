"""Settings of Sphinx for the pages that `docs/build.py` gathers."""
from configparser import ConfigParser
from pathlib import Path
from docutils import nodes
from latex2mathml.converter import convert

parser = ConfigParser(delimiters=["="])
parser.read(Path(__file__).parents[1] / "settings.ini", encoding="utf-8")
facts = parser["DEFAULT"]

project = facts["lib_name"]
author = facts["author"]
copyright = facts["copyright"]
version = release = facts["version"]

extensions = ["myst_nb", "sphinx_copybutton"]
nb_execution_mode = "off"  # pages show what was saved; `make test` runs the chapters
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
nb_mime_priority_overrides = [("html", "image/png", 0), ("html", "image/jpeg", 1)]  # before the text beside a picture
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]  # a chapter may begin with any heading; build.py looks after figures

html_theme = "furo"
html_title = project
html_css_files = ["style.css"]
html_show_sphinx = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def math(block):
    "Formulas as MathML, which browsers draw by themselves: no script, no network."
    def visit(translator, node):
        formula = convert(node.astext(), display="block" if block else "inline")
        translator.body.append(f"<div class='math'>{formula}</div>" if block else formula)
        raise nodes.SkipNode
    return visit


def setup(app):
    app.add_html_math_renderer("mathml", inline_renderers=(math(False), None), block_renderers=(math(True), None))
    app.config.html_math_renderer = "mathml"
