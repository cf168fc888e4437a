"""Make notebooks ready to be committed: `python tests/clean.py [NOTEBOOK ...]` does what nbdev_clean does, and drops progress bars.

Without names it cleans all of nbs/. What notebooks wrote to stderr and widgets that only live in a kernel are removed from their
outputs, and so are the names of temporary folders; figures and tables stay, a picture in two formats in the lighter one. The pre-commit hook calls it.
"""
import json, re, sys
from pathlib import Path
from execnb.nbio import read_nb, write_nb
from nbdev.clean import clean_nb
from house import ROOT, is_progress_bar


def keep_lighter_picture(data: dict) -> None: # JPEG for photographs, PNG for graphics
    kinds = sorted({"image/jpeg", "image/png"} & set(data), key=lambda kind: len(data[kind]))
    for kind in kinds[1:]: del data[kind]


def clean(path: Path) -> None:
    notebook = read_nb(path)
    clean_nb(notebook)
    for cell in notebook.cells:
        if "outputs" in cell:
            for output in cell["outputs"]: keep_lighter_picture(output.get("data", {}))
            cell["outputs"] = [output for output in cell["outputs"] if not is_progress_bar(output)]
            cell["outputs"] = json.loads(re.sub(r"/(?:tmp)/tmp\w+", "...", json.dumps(cell["outputs"])))
    notebook.metadata.pop("widgets", None)
    write_nb(notebook, path)


if __name__ == "__main__":
    paths = [Path(word) for word in sys.argv[1:]] or [p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts]
    for path in paths: clean(path)
