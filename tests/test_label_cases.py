"""Output of annotation tools is read correctly, anything else is an error; see `label_cases.py`. No file starts a program."""
import os, stat
from collections import Counter
from pathlib import Path
import pytest
from PIL import Image
import label_cases


def test_lists_and_labels_of_other_tools():
    kinds, wrong = label_cases.run(400)
    assert wrong == []
    assert len(kinds) > 50 and min(kinds[kind] for kind in ("plain list", "CVAT", "class_dict.csv", "id2label", "Roboflow", "0 name")) >= 8


def test_a_reader_that_shifts_is_noticed(monkeypatch):
    "The cases are effective: a reader that takes a list line by line fails on most kinds."
    from causal_tune.data import labels as classes
    monkeypatch.setattr(classes, "read_class_list", lambda given: (classes.own_rows(list(enumerate(Path(given).read_text("utf-8").split(), 1))), False))
    _, wrong = label_cases.run(60)
    assert len(Counter(kind for _, kind, _ in wrong)) >= 8


@pytest.fixture
def gs(tmp_path, monkeypatch):
    "A stand-in for Ghostscript on PATH; the file that it would write."
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", str(program))
    return tmp_path / "started"


def test_postscript_starts_nothing(gs, tmp_path):
    "Under any name, as an image, a label, for its size and in a folder that is checked."
    from causal_tune.data.converters import check_data
    from causal_tune.data.images import image_size, read_image
    from causal_tune.data.masks import read_label
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n"
    for name in ("street.png", "street.jpg", "street.eps", "street"):
        (tmp_path / name).write_bytes(script)
        for read in (read_image, read_label, image_size):
            with pytest.raises((OSError, ValueError), match="street"): read(tmp_path / name)
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(script)
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert not check_data(f"folder:images={tmp_path}/images,labels={tmp_path}/labels,classes={tmp_path}/classes.txt").ok
    assert not gs.exists()
    try: Image.open(tmp_path / "street.png").load()
    except Exception: pass
    assert gs.exists(), "the stand-in is worth its name: without a list of formats Pillow starts it"


def test_every_open_names_its_formats():
    import causal_tune, re
    for path in Path(causal_tune.__file__).parent.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if "Image.open(" in line: assert "formats=" in line or re.search(r"Image\.open\((BytesIO|io\.BytesIO)\(", line), f"{path.name}: {line.strip()}"
