"""What keeps the notebooks readable: short cells and lines, methods where their class is, chapters that build on earlier ones only."""
import ast
import pytest
from conftest import ROOT
from house import filled, imports, late, notebooks, packed
from mutate import read_table

CHAPTERS = notebooks(ROOT / "nbs")
UPWARDS = {("lab", "offline")}  # FrequencyLab.export_html hands over to the chapter that is about this class
NUMBERS = {n.module: int(n.path.name[:2]) for n in CHAPTERS}
chapters = pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda n: n.path.stem)


@chapters
def test_cells_and_lines_are_short(chapter):
    long = [s.split("\n")[0] for s in chapter.exported if filled(s) > 25]
    wide = [line for s in chapter.exported for line in s.split("\n") if len(line) > 140]
    assert long == [] and wide == []


def test_lines_of_scripts_are_short():
    scripts = list((ROOT / "causal_tune" / "assets").glob("*.js"))
    assert scripts and [line for path in scripts for line in path.read_text(encoding="utf-8").split("\n") if len(line) > 140] == []


@chapters
def test_methods_are_where_their_class_is(chapter):
    assert [name for s in chapter.exported for name in late(s)] == []


@chapters
def test_chapters_build_on_earlier_ones(chapter):
    used = {m for s in [*chapter.exported, *chapter.tests] for m in imports(s)} & set(NUMBERS)
    later = {(chapter.module, m) for m in used if NUMBERS[m] > NUMBERS[chapter.module]}
    assert later - UPWARDS == set()


def unused(text):
    "What a module imports at its top and never names; a comment in the line says why it is imported all the same."
    tree = ast.parse(text)
    lines = text.splitlines()
    imported = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom)) and "#" not in lines[node.end_lineno - 1]]
    names = {(alias.asname or alias.name).split(".")[0] for node in imported for alias in node.names}
    return names - {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - {"annotations"}


def test_every_import_is_used():
    files = [*(ROOT / "causal_tune").glob("*.py"), *(ROOT / "tests").glob("*.py"), *(ROOT / "docs").glob("*.py")]
    found = {path.name: unused(path.read_text(encoding="utf-8")) for path in files if path.name != "__init__.py"}
    assert {name: names for name, names in found.items() if names} == {}


def test_every_place_to_break_is_there():
    table = read_table(ROOT / "tests/mutations.txt")
    sources = {m.module: (ROOT / f"causal_tune/{m.module}.py").read_text(encoding="utf-8") for m in table}
    assert [(m.module, m.old) for m in table if sources[m.module].count(m.old) != 1] == []


def test_the_measure_itself():
    "A ruler that always says zero would let everything pass."
    assert unused("import a, b.c\nfrom d import (e,\n f as g)\nimport h  # registers\nb.c(e)") == {"a", "g"}
    assert packed("a, b = 1, 2\nc, d = e\nf = 1, 2") == 1
    assert late("Segmentor.loss = loss\nx.y = 1") == ["Segmentor.loss"]
    assert imports("def f():\n    from causal_tune.lab.widget import x\n    from causal_tune import y\n    import causal_tune.z") == {"lab", "y", "z"}
