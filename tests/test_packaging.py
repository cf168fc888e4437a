"""What `pip install .` gives, and what importing it costs."""
import os, shutil, subprocess, sys, zipfile
import pytest
from conftest import ROOT

ASSET = ROOT / "causal_tune" / "assets" / "toy_vit.safetensors"
needs_asset = pytest.mark.skipif(not ASSET.exists(), reason="the weights of toy_vit are not in this checkout yet")


def python(code, cwd, **env):
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=os.environ | env, timeout=120,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "The package's wheel, built from a copy that holds no left-overs of earlier builds."
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE", "MANIFEST.in"): shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "causal_tune", source / "causal_tune", ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", ".", "--quiet", "--no-deps", "--no-build-isolation", "-w", out]
    subprocess.run(build, cwd=source, check=True, timeout=120)
    return next(out.glob("causal_tune-*.whl"))


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
    for module in (ROOT / "causal_tune").rglob("*.py"): assert module.relative_to(ROOT).as_posix() in names
    assert not [n for n in names if n.startswith(("tests", "nbs", "data", "runs"))]


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
    code = f"import sys; from causal_tune import cli; cli.make_parser().format_help(); print({heavy})"
    assert python(code, site) == "[]"


def test_every_module_imports_outside_the_checkout(site, tmp_path):
    code = """if True:
        import importlib, pkgutil, causal_tune
        for m in pkgutil.iter_modules(causal_tune.__path__): importlib.import_module(f"causal_tune.{m.name}")
        for name in causal_tune.__all__: getattr(causal_tune, name)
        print(causal_tune.__file__)"""
    assert python(code, tmp_path, PYTHONPATH=str(site)).splitlines()[-1].startswith(str(site))


@needs_asset
def test_toy_vit_loads_outside_the_checkout(site, tmp_path):
    code = "import causal_tune as ct; print(ct.create_backbone('toy_vit').channels)"
    assert python(code, tmp_path, PYTHONPATH=str(site)).splitlines()[-1] == "192"
