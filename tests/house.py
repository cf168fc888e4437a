"""How large is the package, and how is it put together? `python tests/house.py` prints the counts.

    python tests/house.py             # totals
    python tests/house.py --modules   # also one line per module
    python tests/house.py --unused    # also the public names that nothing else uses
    python tests/house.py --tests     # also the number of test cases (collects them, some seconds)

lines      exported lines with code; comments, blank lines and nbdev's own lines do not count
tokens     Python tokens of those lines
names      entries of `__all__`
raise      raise statements per 1,000 lines
figure     chapters whose saved outputs show a figure, a picture or a table
"""
import argparse, ast, io, json, re, subprocess, sys, tokenize
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "causal_tune"
NOT_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
SHOWN = ("image/", "text/html", "application/vnd.plotly")
# A package imports only from those before it; `core` holds what all need.
ORDER = ["core", "spectra", "adapters", "toyscapes", "data", "models", "training", "research", "compare", "lab", "published", "cli"]


class Module(NamedTuple):
    name: str      # dotted, without the package: spectra.bands
    tree: ast.Module
    lines: int
    tokens: int
    public: list[str]  # its __all__

    @property
    def package(self) -> str: return self.name.partition(".")[0]
    @property
    def raises(self) -> int: return sum(isinstance(node, ast.Raise) for node in ast.walk(self.tree))


def module_name(path: Path, root: Path) -> str:
    "Dotted name below the package; a package bears its folder's name, the outermost one is empty."
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read_module(path: Path, root: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    code = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in NOT_CODE]
    lines = {line for t in code for line in range(t.start[0], t.end[0] + 1)}
    public = [name for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
              and isinstance(node.value, ast.List) for name in ast.literal_eval(node.value)]
    return Module(module_name(path, root), tree, len(lines), len(code), public)


def read_modules(root: Path = ROOT / PACKAGE) -> dict[str, Module]:
    "Every module of the package but nbdev's index, by name."
    paths = [path for path in sorted(root.rglob("*.py")) if path.name != "_modidx.py" and "__pycache__" not in path.parts]
    return {m.name: m for m in (read_module(path, root) for path in paths)}


def imported(tree: ast.Module, name: str, is_package: bool, known) -> set[str]:
    "Modules of the package that a module's source imports, at its top or inside a function."
    found = set()
    def add(base: str, names: list[str]):
        inner = [f"{base}.{n}".strip(".") for n in names]
        found.update(n if n in known else base for n in inner) if names else found.add(base)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                head, _, rest = alias.name.partition(".")
                if head == PACKAGE and rest: found.add(rest)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if node.level:
                parts = name.split(".") if name else []
                parts = parts[:len(parts) - node.level + is_package]
                add(".".join(filter(None, [*parts, node.module])), names)
            elif node.module == PACKAGE: add("", names)
            elif (node.module or "").startswith(f"{PACKAGE}."): add(node.module.partition(".")[2], names)
    return (found & set(known)) - {name, ""}


def import_graph(modules: dict[str, Module], root: Path = ROOT / PACKAGE) -> dict[str, set[str]]:
    packages = {module_name(path, root) for path in root.rglob("__init__.py")}
    return {name: imported(m.tree, name, name in packages, modules) for name, m in modules.items()}


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    "Groups of modules that import each other, directly or through others."
    def reachable(start: str) -> set[str]:
        seen, todo = set(), list(graph[start])
        while todo:
            if (name := todo.pop()) in seen: continue
            seen.add(name)
            todo += graph.get(name, ())
        return seen
    reach = {name: reachable(name) for name in graph}
    groups = {tuple(sorted(n for n in reach[name] if name in reach[n])) for name in graph if name in reach[name]}
    return [list(group) for group in sorted(groups)]


def upward(graph: dict[str, set[str]], order: list[str] = ORDER) -> list[tuple[str, str]]:
    "Imports of a package that comes later in the order."
    place = {package: i for i, package in enumerate(order)}
    def rank(name: str): return place.get(name.partition(".")[0], len(order))
    return sorted((name, other) for name, others in graph.items() if name for other in others if rank(other) > rank(name))


class Notebook(NamedTuple):
    path: Path
    cells: list[dict]

    @property
    def exports(self) -> str | None:
        "The module it is exported to, spectra.bands."
        found = re.search(r"^#\s*\|\s*default_exp\s+([\w.]+)", self.code, re.M)
        return found and found[1]

    @property
    def code(self) -> str: return "\n".join("".join(c["source"]) for c in self.cells if c["cell_type"] == "code")

    @property
    def outputs(self) -> list[dict]: return [o for c in self.cells for o in c.get("outputs", [])]

    @property
    def has_figure(self) -> bool:
        return any(kind.startswith(SHOWN) for o in self.outputs for kind in o.get("data", {}))


def read_notebooks(folder: Path = ROOT / "nbs") -> list[Notebook]:
    paths = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    return [Notebook(path, json.loads(path.read_text(encoding="utf-8"))["cells"]) for path in paths]


def is_progress_bar(output: dict) -> bool:
    "Whether a saved output only lives in a kernel: tqdm's widget without a picture of it, or text on stderr."
    kinds = output.get("data", {})
    widget = "application/vnd.jupyter.widget-view+json" in kinds and not any(kind.startswith(SHOWN) for kind in kinds)
    return widget or output.get("name") == "stderr"


def progress_bars(notebook: Notebook) -> list[dict]: return list(filter(is_progress_bar, notebook.outputs))


def words(text: str) -> set[str]: return set(re.findall(r"\b[A-Za-z_]\w*\b", text))


def unused(modules: dict[str, Module], notebooks: list[Notebook]) -> dict[str, list[str]]:
    "Public names, by module, that no other module, tutorial, experiment, README or contract names."
    used_in = {name: words(ast.unparse(m.tree)) for name, m in modules.items()}
    pages = [ROOT / "README.md", ROOT / "data/README.md", ROOT / "checkpoints/README.md"]
    outside = set().union(*(words(path.read_text(encoding="utf-8")) for path in pages))
    outside |= set().union(*(words("".join(map("".join, (c["source"] for c in n.cells)))) for n in notebooks if not n.exports))
    found = {}
    for name, m in modules.items():
        others = outside.union(*(used for other, used in used_in.items() if other != name))
        found[name] = [n for n in m.public if n not in others]
    return {name: names for name, names in found.items() if names}


def test_cases() -> int:
    words = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(ROOT / "tests")]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True).stdout
    return int(re.search(r"(\d+)(?:/\d+)? tests collected", said)[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("modules", "unused", "tests"): parser.add_argument(f"--{name}", action="store_true")
    args = parser.parse_args()
    modules, notebooks = read_modules(), read_notebooks()
    graph = import_graph(modules)
    chapters = [n for n in notebooks if n.exports]
    lines, tokens = (sum(getattr(m, field) for m in modules.values()) for field in ("lines", "tokens"))
    if args.modules:
        print(f"{'module':28}{'lines':>7}{'tokens':>8}{'names':>7}{'raise':>7}  imports")
        for name, m in modules.items():
            print(f"{name or PACKAGE:28}{m.lines:7}{m.tokens:8}{len(m.public):7}{m.raises:7}  {' '.join(sorted(graph[name]))}")
        print()
    if args.unused:
        for name, names in unused(modules, notebooks).items(): print(f"{name}: {' '.join(names)}")
        print()
    scripts = sorted((ROOT / PACKAGE).rglob("*.js"))
    counts = {
        "modules": len(modules),
        "lines": lines,
        "tokens": tokens,
        "lines of JavaScript": sum(bool(line.strip()) for path in scripts for line in path.read_text(encoding="utf-8").splitlines()),
        "public names": sum(len(m.public) for m in modules.values()),
        "used by nothing else": sum(map(len, unused(modules, notebooks).values())),
        "raise per 1,000 lines": round(1000 * sum(m.raises for m in modules.values()) / lines, 1),
        "chapters": len(chapters),
        "with a figure or table": sum(n.has_figure for n in chapters),
        "saved progress bars": sum(len(progress_bars(n)) for n in notebooks),
        "import cycles": len(cycles(graph)),
        "imports against the order": len(upward(graph)),
    }
    if args.tests: counts["test cases"] = test_cases()
    for name, value in counts.items(): print(f"{name:28}{value:>10,}")


if __name__ == "__main__": main()
