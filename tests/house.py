"""How dense is the house? `python tests/house.py [FOLDER]` prints a line per notebook that exports, and one for all.

tokens/line     code only: no comments, line ends or indents; 10 to 12 reads well
packed          assignments like `a, b = x, y`, per 1,000 lines
late            methods assigned to their class outside of it
cell, line      lines of the longest exported cell, characters of the longest exported line
names           what `import *` would bring
prose           words of text an exported line
asserts         assertions an exported cell
"""
import ast, io, json, re, sys, tokenize
from pathlib import Path
from typing import NamedTuple

NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
PATCHES = {"patch", "patch_to"}


class Notebook(NamedTuple):
    path: Path
    exported: list[str]  # sources of cells that become code of the package, without their directives
    tests: list[str]     # sources of all other code cells
    prose: str           # its text
    module: str | None   # what it exports to

    @property
    def lines(self): return sum(map(filled, self.exported))
    @property
    def tokens(self): return sum(map(tokens, self.exported))


def read(path: Path) -> Notebook:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
    prose = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    exports = [bool(re.search(r"^#\s*\|\s*exports?\b", s, re.M)) for s in code]
    exported = [undirected(s) for s, yes in zip(code, exports) if yes]
    tests = [undirected(s) for s, yes in zip(code, exports) if not yes]
    module = re.search(r"^#\s*\|\s*default_exp\s+(\w+)", "\n".join(code), re.M)
    return Notebook(path, exported, tests, "\n".join(prose), module and module[1])


def notebooks(folder: Path) -> list[Notebook]:
    "Chapters in their order; experiments, which export nothing, are left out."
    found = [read(p) for p in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    return sorted((n for n in found if n.exported), key=lambda n: n.path.name)


def undirected(source: str) -> str:
    return "\n".join(line for line in source.split("\n") if not re.match(r"\s*#\s*\|", line))


def filled(source: str) -> int:
    return sum(bool(line.strip()) for line in source.split("\n"))


def tokens(source: str) -> int:
    return sum(t.type not in NO_CODE for t in tokenize.generate_tokens(io.StringIO(source + "\n").readline))


def assignments(source: str) -> list[ast.Assign]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]


def packed(source: str) -> int:
    return sum(isinstance(a.targets[0], ast.Tuple) and isinstance(a.value, ast.Tuple) for a in assignments(source))


def late(source: str) -> list[str]:
    "Names such as Segmentor.loss that are assigned to a class."
    targets = [t for a in assignments(source) for target in a.targets for t in getattr(target, "elts", [target])]
    on_names = [t for t in targets if isinstance(t, ast.Attribute) and isinstance(t.value, ast.Name)]
    return [ast.unparse(t) for t in on_names if t.value.id[0].isupper()]


def public(source: str) -> list[str]:
    names = []
    for node in ast.parse(source).body:
        decorators = {getattr(getattr(d, "func", d), "id", "") for d in getattr(node, "decorator_list", [])}
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not decorators & PATCHES: names.append(node.name)
        if isinstance(node, ast.Assign):
            names += [t.id for target in node.targets for t in getattr(target, "elts", [target]) if isinstance(t, ast.Name)]
    return [name for name in names if not name.startswith("_")]


def assertions(source: str) -> int:
    source = "\n".join("pass" if line.startswith(("%", "!")) else line for line in source.split("\n"))
    calls = [n.func for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Call)]
    tested = sum(isinstance(f, ast.Name) and f.id.startswith("test_") for f in calls)
    return tested + sum(isinstance(n, ast.Assert) for n in ast.walk(ast.parse(source)))


def imports(source: str) -> set[str]:
    "Modules of the package that a cell imports, wherever in the cell it does."
    source = "\n".join("pass" if line.startswith(("%", "!")) else line for line in source.split("\n"))
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("causal_tune.")}
        if not isinstance(node, ast.ImportFrom): continue
        if node.module == "causal_tune": found |= {a.name for a in node.names}
        elif (node.module or "").startswith("causal_tune."): found.add(node.module.split(".")[1])
    return found


COLUMNS = ("lines", "tokens", "tokens/line", "packed", "late", "cell", "line", "names", "prose", "asserts")

def row(name: str, some: list[Notebook]) -> str:
    exported = [s for n in some for s in n.exported]
    lines = sum(n.lines for n in some)
    values = dict(zip(COLUMNS, (
        lines, sum(n.tokens for n in some), f"{sum(n.tokens for n in some) / lines:.1f}",
        f"{1000 * sum(map(packed, exported)) / lines:.0f}", sum(len(late(s)) for s in exported),
        max(map(filled, exported)), max(len(line) for s in exported for line in s.split("\n")),
        sum(len(public(s)) for s in exported), f"{sum(len(n.prose.split()) for n in some) / lines:.1f}",
        f"{sum(assertions(s) for n in some for s in n.tests) / len(exported):.1f}")))
    return f"{name:20}" + "".join(f"{values[c]:>{len(c) + 3}}" for c in COLUMNS)


def main(folder: Path):
    chapters = notebooks(folder)
    print(" " * 20 + "".join(f"{c:>{len(c) + 3}}" for c in COLUMNS))
    for n in chapters: print(row(n.path.stem, [n]))
    print(row("all", chapters))


if __name__ == "__main__": main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "nbs")
