"""Contents of the installed package, and the cost of importing it."""
import os, shutil, subprocess, sys, tarfile, zipfile
import pytest, yaml
from conftest import ROOT
from versions import settings

ASSET = ROOT / "causal_tune" / "assets" / "toy_vit.safetensors"
needs_asset = pytest.mark.skipif(not ASSET.exists(), reason="the weights of toy_vit are not in this checkout yet")


def python(code, cwd, **env):
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=os.environ | env, timeout=240,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def call(words, cwd):
    done = subprocess.run([sys.executable, "-m", *map(str, words)], cwd=cwd, timeout=240, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    "What is packed, without left-overs of earlier builds."
    folder = tmp_path_factory.mktemp("source")
    packed = [line.split()[1:] for line in (ROOT / "MANIFEST.in").read_text().splitlines() if line.startswith("include")]
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", *sum(packed, [])): shutil.copy(ROOT / name, folder)
    for name in ("causal_tune", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    "The package's wheel, from its folder."
    out = tmp_path_factory.mktemp("wheel")
    call(["pip", "wheel", ".", "--quiet", "--no-deps", "--no-build-isolation", "-w", out], source)
    return next(out.glob("causal_tune_toolkit-*.whl"))


@pytest.fixture(scope="module")
def dist(source, tmp_path_factory):
    "Source distribution, and the wheel that is built from it."
    pytest.importorskip("build", reason="the package `build` is not installed")
    out = tmp_path_factory.mktemp("dist")
    call(["build", "--no-isolation", "--outdir", out], source)
    return out


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    "A folder with the wheel's content, outside the checkout."
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive: archive.extractall(folder)
    return folder


def test_wheel_holds_every_module_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        entry = next(n for n in names if n.endswith("entry_points.txt"))
        assert "causal-tune=causal_tune.cli:main" in archive.read(entry).decode().replace(" ", "")
    there = [path for path in (ROOT / "causal_tune").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert [path for path in there if path.relative_to(ROOT).as_posix() not in names] == [], "assets and py.typed too"
    assert not [n for n in names if n.startswith(("tests", "nbs", "data", "runs"))]


def test_source_distribution_makes_the_same_wheel(dist, wheel):
    with zipfile.ZipFile(wheel) as ours, zipfile.ZipFile(next(dist.glob("*.whl"))) as theirs:
        digests = [{info.filename: info.CRC for info in archive.infolist()} for archive in (ours, theirs)]
    assert digests[0] == digests[1]


def test_source_distribution_holds_what_belongs_to_it(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive: names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CITATION.cff", "CHANGELOG.md", "SECURITY.md", "constraints.txt", "settings.ini"} <= names
    assert not [name for name in names if name.startswith(("tests", "nbs", "docs"))], "a part of the tests tells nobody anything"


@pytest.mark.parametrize("module, words", [("twine", ["check", "--strict"]), ("check_wheel_contents", [])])
def test_distributions_are_in_order(dist, module, words):
    pytest.importorskip(module, reason=f"the package {module} is not installed")
    files = [path for path in dist.iterdir() if module == "twine" or path.suffix == ".whl"]
    call([module, *words, *files], dist)


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        told = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
        assert [n for n in archive.namelist() if n.endswith("LICENSE")]
    for line in ("Requires-Python: >=3.10", "License: Apache-2.0", "Description-Content-Type: text/markdown",
                 "Classifier: Programming Language :: Python :: 3.10", "Classifier: Programming Language :: Python :: 3.13"):
        assert line in told.splitlines()


def test_actions_run_what_ci_runs():
    "CI runs the oldest and the newest Python with the Makefile's commands only."
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == [settings()["min_python"], settings()["max_python"]]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert job["steps"][-2]["with"] == {"python-version": "${{ matrix.python }}"}


def test_citation():
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (told["title"], told["version"], told["license"]) == (settings()["title"], settings()["version"], "Apache-2.0")
    assert {"cff-version", "message", "authors", "abstract"} <= told.keys() and told["abstract"] == settings()["description"]
    assert told["references"][0]["identifiers"] == [{"type": "other", "value": "arXiv:2512.16567"}]


def test_every_requirement_has_a_lower_bound():
    "A lower bound defines the oldest supported version; tests/versions.py tests them all at once."
    packages = [name for field in ("requirements", "export_requirements") for name in settings()[field].split()]
    assert [name for name in packages if ">=" not in name] == []


@needs_asset
def test_wheel_holds_the_weights(wheel):
    with zipfile.ZipFile(wheel) as archive: size = archive.getinfo("causal_tune/assets/toy_vit.safetensors").file_size
    assert size == ASSET.stat().st_size <= 8_000_000


def test_version_is_the_one_of_settings(site):
    settings = (ROOT / "settings.ini").read_text()
    assert f"version = {python('import causal_tune; print(causal_tune.__version__)', site)}\n" in settings


def test_import_is_light(site):
    "`import causal_tune` takes none of the heavy packages, and `causal-tune --help` neither."
    heavy = "[m for m in ('torch', 'torchvision', 'timm', 'numpy', 'pandas', 'plotly', 'IPython') if m in sys.modules]"
    assert python(f"import sys, causal_tune; print({heavy})", site) == "[]"
    code = f"""if True:
        import contextlib, io, sys
        from causal_tune.cli import main
        with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.suppress(SystemExit): main(["--help"])
        assert "train" in said.getvalue()
        print({heavy})"""
    assert python(code, site) == "[]"


@needs_asset
def test_it_works_outside_the_checkout(site, tmp_path):
    "Every module, every name, and the weights of toy_vit."
    code = """if True:
        import importlib, pkgutil, causal_tune as ct
        for m in pkgutil.walk_packages(ct.__path__, "causal_tune."):
            if not m.name.endswith("__main__"): importlib.import_module(m.name)
        for name in ct.__all__: getattr(ct, name)
        print(ct.__file__, ct.create_backbone("toy_vit").channels)"""
    said = python(code, tmp_path, PYTHONPATH=str(site)).splitlines()[-1]
    assert said.startswith(str(site)) and said.endswith(" 192")
