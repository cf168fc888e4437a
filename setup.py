"""Packaging, read from settings.ini so that every fact about the package has one home."""
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="])
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]

STATUS = {"3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
oldest, newest = (int(cfg[bound].split(".")[1]) for bound in ("min_python", "max_python"))

setup(
    name=cfg["lib_name"],
    version=cfg["version"],
    description=cfg["description"],
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    license="Apache-2.0",
    keywords=cfg["keywords"].split(),
    classifiers=[
        f"Development Status :: {STATUS[cfg['status']]}",
        "Framework :: Jupyter",
        "Intended Audience :: Science/Research",
        *(f"Programming Language :: Python :: {version}" for version in ["3", *(f"3.{minor}" for minor in range(oldest, newest + 1))]),
        "Topic :: Scientific/Engineering :: Image Recognition"],
    python_requires=f">={cfg['min_python']}",
    packages=find_packages(include=[cfg["lib_path"], f"{cfg['lib_path']}.*"]),
    package_data={"": ["assets/*", "assets/*/*", "py.typed"]},
    install_requires=cfg["requirements"].split(),
    extras_require={key.removesuffix("_requirements"): cfg[key].split() for key in cfg if key.endswith("_requirements")},
    entry_points={"console_scripts": cfg["console_scripts"].split()},
    zip_safe=False,
)
