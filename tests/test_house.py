"""How the package is put together: folders, imports, names. Checks of ruff are left to ruff (`make check`)."""
import ast, importlib, inspect, json, pkgutil, types
import causal_tune
from conftest import ROOT
from house import ORDER, cycles, import_graph, imported, is_progress_bar, progress_bars, read_modules, read_notebooks, upward
from mutate import read_table, source_of

NOTEBOOKS = read_notebooks()
GRAPH = import_graph(read_modules())
CHAPTERS = [n for n in NOTEBOOKS if n.exports]


def test_packages_are_the_notebook_folders():
    "One to one: nbs/03_data holds what causal_tune/data is made of, and nothing else is exported there."
    homes = {n.exports: n.path.parent.name.partition("_")[2] for n in CHAPTERS}
    assert {module: folder for module, folder in homes.items() if module.partition(".")[0] != folder} == {}
    packages = {path.parent.name for path in (ROOT / "causal_tune").glob("*/__init__.py")}
    assert packages == set(homes.values()) == set(ORDER)
    assert len(homes) == len(CHAPTERS), "two notebooks export the same module"


def test_packages_build_on_earlier_ones():
    assert len(GRAPH) > 20 and sum(map(len, GRAPH.values())) > 100
    assert upward(GRAPH) == []


def test_no_import_cycle():
    "Inside functions neither."
    assert cycles(GRAPH) == []


def import_all() -> list[types.ModuleType]:
    found = [m.name for m in pkgutil.walk_packages(causal_tune.__path__, "causal_tune.") if not m.name.endswith("__main__")]
    return [importlib.import_module(name) for name in found]


def test_no_name_is_hidden_by_a_module():
    "A package that bears the name of a public function takes its place as soon as it is imported."
    hidden = [f"{package.__name__}.{name}" for package in (*import_all(), causal_tune) if hasattr(package, "__path__")
              for name in getattr(package, "__all__", []) if isinstance(getattr(package, name), types.ModuleType)]
    assert hidden == []
    assert [name for name in causal_tune.__all__ if not callable(getattr(causal_tune, name))] == []


def test_saved_outputs_are_small_and_hold_no_progress_bars():
    sizes = {n.path.name: len(json.dumps([c["outputs"] for c in n.cells if c.get("outputs")])) for n in NOTEBOOKS}
    assert {name: size for name, size in sizes.items() if size > 100_000} == {}
    assert [n.path.name for n in NOTEBOOKS if progress_bars(n)] == [], "run python tests/clean.py"


def test_every_place_to_break_is_there():
    table = read_table(ROOT / "tests/mutations.txt")
    sources = {m.module: source_of(ROOT, m.module).read_text(encoding="utf-8") for m in table}
    assert [(m.module, m.old) for m in table if sources[m.module].count(m.old) != 1] == []


def test_every_public_name_has_a_docstring():
    "Functions and classes of every module's __all__, and of the package's own."
    silent = []
    for module in import_all():
        if hasattr(module, "__path__"): continue
        for name in getattr(module, "__all__", []):
            o = getattr(module, name)
            if not (inspect.isfunction(o) or inspect.isclass(o)) or o.__module__ != module.__name__: continue
            own = vars(o).get("__doc__") if inspect.isclass(o) else o.__doc__
            if not own or own.startswith(f"{name}("): silent.append(f"{module.__name__}.{name}")
    assert silent == []


def test_the_measure_itself():
    "A measure that is always zero would pass everything."
    known = {"", "a", "a.x", "a.y", "b", "b.z"}
    source = "from .y import f\nfrom ..b import z\ndef g():\n    import causal_tune.b.z\n    from causal_tune.a import nothing\nimport os"
    assert imported(ast.parse(source), "a.x", False, known) == {"a.y", "b.z", "a"}
    assert imported(ast.parse("from .x import f"), "a", True, known) == {"a.x"}
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert upward({"core.files": {"spectra.dct"}, "cli.x": {"core.files"}}) == [("core.files", "spectra.dct")]
    bar = dict(data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "0%"})
    assert is_progress_bar(bar) and is_progress_bar(dict(output_type="stream", name="stderr", text="0%"))
    assert not is_progress_bar(dict(data={"image/png": "", **bar["data"]})) and not is_progress_bar(dict(name="stdout", text="1"))
