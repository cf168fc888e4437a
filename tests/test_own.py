"""Data of one's own: two folders on the command line, objects of a program in Python, and the label space that travels with a model.
An adapter of one's own, by the command line."""
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import pytest
from PIL import Image
from causal_tune.cli import main
from causal_tune.data.frames import OWN_DATASETS


def street(i, shade=1.):
    "A little street in ids of its own: 3 is sky, 1 road, 0 nothing."
    label = np.full((32, 48), 3, np.uint8)
    label[10 + i:] = 1
    colours = np.zeros((4, 3))
    colours[[1, 3]] = (90, 90, 90), (90, 140, 220)
    image = (shade * colours[label]).astype(np.uint8)
    label[:, :2] = 0
    return image, label


@pytest.fixture
def folders(tmp_path, monkeypatch):
    "Folders day and night with images, labels and classes.txt, and the descriptors of both."
    monkeypatch.chdir(tmp_path)
    (tmp_path / "classes.txt").write_text("-\nroad\n3: sky #4682b4\n")
    for domain, shade in dict(day=1., night=.3).items():
        for what in ("images", "labels"): (tmp_path / domain / what).mkdir(parents=True)
        for i in range(3):
            image, label = street(i, shade)
            Image.fromarray(image).save(tmp_path / domain / f"images/{i}.jpg")
            Image.fromarray(label).save(tmp_path / domain / f"labels/{i}.png")
    return {d: f"folder:images={d}/images,labels={d}/labels,classes=classes.txt" for d in ("day", "night")}


@pytest.fixture
def run(folders, tiny, capsys):
    "A run on the folders, by the command line."
    small = ["--iterations", "12", "--lr", ".01", "--head", "linear", "--color", "off"]
    assert main(["train", "demo", *map(str, tiny), "--train", folders["day"], "--targets", *folders.values(), "--out", "run", *small]) == 0
    return capsys.readouterr()


def test_folders_from_training_to_prediction(run, folders, capsys, tmp_path):
    assert "  day  mIoU" in run.out and "night  mIoU" in run.out
    assert main(["eval", "run/checkpoint.pt", "--targets", folders["night"]]) == 0
    line = next(line for line in run.out.splitlines() if " night " in line)
    assert line.split("folder")[0].split() == capsys.readouterr().out.splitlines()[0].split("folder")[0].split()
    assert main(["predict", "run/checkpoint.pt", "day/images/0.jpg", "--out", "predictions"]) == 0
    overview = np.asarray(Image.open(tmp_path / "predictions/0_overview.png"))[:, 48:]
    assert {tuple(c) for c in overview.reshape(-1, 3).tolist()} <= {(128, 64, 128), (70, 130, 180), (255, 255, 255)}  # road as in Cityscapes, sky as the file says


def test_the_lab_knows_the_classes(run, tmp_path):
    from causal_tune.lab.launch import open_lab
    lab = open_lab(tmp_path / "day/images", checkpoint=tmp_path / "run/checkpoint.pt", size=(32, 48), n=1)
    assert lab.space.classes == ("road", "sky") and lab.space.palette[1].tolist() == [70, 130, 180]


@pytest.mark.parametrize("change, said", [
    (lambda p: (p / "classes.txt").write_text("road\n"), "1 class: a segmentor needs at least two"),
    (lambda p: (p / "classes.txt").unlink(), "No file of classes at classes.txt"),
    (lambda p: (p / "classes.txt").write_text("sky\nroad\n"), "label ids [3] are not in the table, which knows [0, 1]"),
    (lambda p: (p / "day/labels/1.png").unlink(), "1 of 3 images in day/images lack a label *.png in day/labels: 1."),
    (lambda p: Image.new("L", (5, 4)).save(p / "day/labels/1.png"), "day/labels: 1 of 3 labels have another size than their image (1.png)"),
    (lambda p: Image.new("RGB", (48, 32)).save(p / "day/labels/1.png"), "1.png: 1536 of its 1536 pixels have a colour of no class, most of them (0, 0, 0) 1536 times"),
    (lambda p: [f.unlink() for f in (p / "day/images").iterdir()], "day/images holds no files"),
])
def test_wrong_folders_are_one_line(folders, tiny, capsys, tmp_path, change, said):
    change(tmp_path)
    words = ["--train", folders["day"], "--targets", folders["night"], "--out", "run", "--iterations", "4"]
    assert main(["train", "demo", *map(str, tiny), *words]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("causal-tune: ")]
    assert len(err) == 1 and said in err[0]


def test_folders_are_checked_beforehand(folders, capsys, tmp_path):
    assert main(["check-data", folders["day"]]) == 0 and "none of" not in capsys.readouterr().out
    Image.new("L", (48, 32), 2).save(tmp_path / "day/labels/1.png")
    assert main(["check-data", folders["day"]]) == 1
    assert "problem: day/labels/1.png: label ids [2] are not in the table" in capsys.readouterr().out


def test_classes_of_another_model_are_refused(run, capsys):
    assert main(["eval", "run/checkpoint.pt", "--targets", "toyscapes:n=1"]) == 2
    assert "toyscapes:n=1 has the 19 classes of cityscapes, the model 2" in capsys.readouterr().err


def test_a_program_that_has_ended(folders, tiny, weights, capsys, tmp_path):
    "Its training data are named and not confused with others."
    import causal_tune as ct
    recipe = ct.get_recipe("demo", iterations=2, batch_size=1, crop=(32, 48), head="linear", weights=str(weights), precision="no")
    ct.train(recipe, tmp_path / "run", data=[street(i) for i in range(2)], classes=["-", "road", "3: sky"], targets=dict(dark=[street(0, .3)]))
    OWN_DATASETS.clear()
    assert main(["eval", "run/checkpoint.pt"]) == 2
    assert "own:domain=dark was a data set of a program and is not registered here" in capsys.readouterr().err
    assert main(["eval", "run/checkpoint.pt", "--targets", folders["night"]]) == 0


def test_a_folder_whose_name_holds_a_space(run, tmp_path, capsys):
    (tmp_path / "night").rename(tmp_path / "at night")
    spec = "folder:images=at night/images,labels=at night/labels,classes=classes.txt"
    assert main(["eval", "run/checkpoint.pt", "--targets", spec, "toyscapes:n=1"]) == 2  # two targets, the second with other classes
    assert "toyscapes:n=1 has the 19 classes" in capsys.readouterr().err
    assert main(["eval", "run", "--targets", spec]) == 0
    assert "at night  mIoU" in capsys.readouterr().out


LIFTED = """
from torch import nn, zeros
from causal_tune.adapters.base import ADAPTERS, Adapter

@ADAPTERS.register("lifted")
class Lifted(Adapter):
    def __init__(self, num_layers, channels, patch_size=16, query_dim=256):
        super().__init__(num_layers, channels)
        self.lift = nn.Parameter(zeros(num_layers, channels))
    def forward(self, tokens, layer, grid): return tokens + self.lift[layer]
"""


def test_a_run_without_targets_says_so(folders, tiny, capsys):
    assert main(["train", "demo", *map(str, tiny), "--targets", "", "--head", "linear", "--iterations", "1", "--out", "run"]) == 0
    assert main(["eval", "run"]) == 2
    assert "run/checkpoint.pt names no targets: give --targets SPEC" in capsys.readouterr().err


def test_an_adapter_of_ones_own(folders, tiny, capsys, tmp_path, monkeypatch):
    "It can be named on the command line, is available in child processes, and the error without an import says how to import it."
    from causal_tune.adapters.base import ADAPTERS, create_adapter
    from causal_tune.core.registry import IMPORT_VARIABLE as MODULES
    monkeypatch.setenv(MODULES, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "lifted.py").write_text(LIFTED)
    words = ["--adapter", "lifted", "--import", "lifted", "--head", "linear", "--iterations", "1", "--out", "run"]
    assert main(["train", "demo", *map(str, tiny), *words]) == 0
    monkeypatch.chdir("/")
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert pool.submit(create_adapter, "lifted", 2, 8).result().lift.shape == (2, 8)
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv(MODULES, "")
    del ADAPTERS["lifted"], sys.modules["lifted"]
    capsys.readouterr()
    assert main(["eval", "run/checkpoint.pt"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("causal-tune: run/checkpoint.pt: Unknown adapter 'lifted'") and "causal-tune --import MODULE" in said and said.count("\n") == 1
    assert main(["--import", "lifted", "eval", "run/checkpoint.pt"]) == 0 and "mIoU" in capsys.readouterr().out
    assert main(["eval", "run/checkpoint.pt", "--import", "lifter"]) == 2
    assert "The module lifter cannot be imported from " in capsys.readouterr().err
    del ADAPTERS["lifted"], sys.modules["lifted"]
