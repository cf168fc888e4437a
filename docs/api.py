"""The pages of the API: one per module, made of docstrings, signatures and docments."""
import inspect, re
from importlib import import_module
from pkgutil import walk_packages
from typing import NamedTuple
from fastcore.docments import docments

PACKAGE = "causal_tune"
EMPTY = inspect.Parameter.empty


class Page(NamedTuple):
    module: str
    text: str             # Markdown
    silent: list[str]     # public names of which it has nothing to say


def modules() -> list[str]:
    found = walk_packages(import_module(PACKAGE).__path__, f"{PACKAGE}.")
    return sorted(m.name.removeprefix(f"{PACKAGE}.") for m in found if not m.ispkg and "._" not in m.name)


def own(module) -> list[str]:
    "Public names that can be called and come from this module."
    named = {name: getattr(module, name) for name in module.__all__}
    return [name for name, o in named.items() if inspect.isfunction(o) or inspect.isclass(o)]


def docstring(o) -> str:
    "The object's own docstring; a dataclass's default docstring is only its signature."
    text = vars(o).get("__doc__") if inspect.isclass(o) else o.__doc__
    if not text or text.startswith(f"{o.__name__}("): return ""
    return inspect.cleandoc(text)


def code(value) -> str:
    "A value inside a table."
    if inspect.isclass(value): value = value.__name__
    text = str(value).replace("|", r"\|").replace("\n", " ")
    return f"`{text}`"


def shown(default) -> str:
    if default is EMPTY: return ""
    text = repr(default)
    return "" if text.startswith("<") or len(text) > 60 else code(text)


def argument_rows(o) -> list[str]:
    "A line for each argument, and one for the return value."
    rows = []
    for name, what in docments(o, full=True).items():
        anno = what["anno"]
        kind = "" if anno in (EMPTY, None, "None", type(None)) else code(anno)
        said = (what["docment"] or "").replace("|", r"\|").replace("\n", " ")
        if name == "self" or (name in ("return", "args", "kwargs") and not (said or kind)): continue
        label = "*returns*" if name == "return" else code(name)
        rows.append(f"| {label} | {kind} | {shown(what.get('default', EMPTY))} | {said} |")
    return rows


def signature(o) -> str:
    "Argument names only; types and defaults are in the table."
    try: parameters = inspect.signature(o).parameters.values()
    except (ValueError, TypeError): return o.__name__
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [marks.get(p.kind, "") + p.name for p in parameters if p.name != "self"]
    return f"{o.__name__}({', '.join(names)})"


def entry(o, level: int) -> tuple[str, bool]:
    "Markdown of a function or class, and whether it has any description."
    rows = argument_rows(o)
    told = bool(docstring(o)) or any(row.rsplit("|", 2)[1].strip() for row in rows)
    parts = [f"{'#' * level} `{signature(o)}`", escaped(docstring(o))]
    if rows: parts.append("\n".join(["| | type | default | |", "|---|---|---|---|", *rows]))
    return "\n\n".join(filter(None, parts)), told


def escaped(text: str) -> str:
    "Docstrings are plain text: escape Markdown's special characters outside `code`."
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else re.sub(r"([*_<\[\]$])", r"\\\1", piece) for piece in pieces)


def methods(o) -> list:
    "Methods of its own that have a docstring."
    found = [m for name, m in vars(o).items() if inspect.isfunction(m) and not name.startswith("_")]
    return [m for m in found if m.__doc__]


def page(name: str, chapter: str) -> Page: # chapter: where its notebook is, seen from the page
    module = import_module(f"{PACKAGE}.{name}")
    parts = [f"# {name}", f"*{module.__doc__}* [The chapter]({chapter})"]
    silent = []
    for public in own(module):
        o = getattr(module, public)
        text, told = entry(o, 2)
        parts.append(text)
        if not told: silent.append(f"{name}.{public}")
        if inspect.isclass(o): parts += [entry(m, 3)[0] for m in methods(o)]
    return Page(name, "\n\n".join(parts) + "\n", silent)
