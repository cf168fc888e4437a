"""Every reader of the package, with the inputs it is tested on. Each function makes a `Reader` for a folder of its own."""
import json, math, sys
from contextlib import contextmanager
from io import StringIO
from types import SimpleNamespace
from typing import Callable, NamedTuple
import numpy as np
import torch
import damage, make

LONGEST = 500  # characters of a message


class Reader(NamedTuple):
    seeds: list  # whole and hostile inputs
    damage: Callable  # (rng, one of them) -> an input
    reads: dict  # name -> function that reads an input; for files, its path
    suffixes: tuple = ()  # of the file that the input is written to; none: it is read as it is
    name: str = "in"  # of the file
    many: bool = False  # whether its messages list files, one a line


class Enough(BaseException):
    "The work itself was reached."

def reached(*args, **kwargs): raise Enough


def files(seeds): return lambda rng, given: damage.damage_file(rng, given, seeds)
def tree(rng, given): return damage.damage_tree(rng, given)
def text(rng, given): return damage.damage_text(rng, given)
def as_json(value): return json.dumps(value, indent=1).encode()


# --- images and labels -------------------------------------------------------------------------------------------------

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".gif", ".avif")

def coding():
    from causal_tune.data.labels import CITYSCAPES
    from causal_tune.data.masks import coding_of
    return coding_of(CITYSCAPES)

def images(folder):
    from causal_tune.data import converters, frames, images
    from causal_tune.research import observation
    label, whole = folder / "whole_label.png", folder / "whole.png"
    label.write_bytes(make.labels()[0])
    whole.write_bytes(make.picture())
    def checked(image):
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size, image.shape
    seeds = make.images()
    return Reader(seeds, files(seeds), dict(
        read_image=lambda path: checked(images.read_image(path)),
        gather=lambda path: observation.gather_images({"a": [whole, path]}, (8, 8)),
        halve=converters.halve_image,
        read_pair=lambda path: frames.read_pair(path, label, coding())), SUFFIXES)


def labels(folder):
    from causal_tune.data import converters, frames, masks
    image = folder / "whole.png"
    image.write_bytes(make.picture(size=(12, 9)))
    def checked(ids): assert ids.ndim == 2 and ids.dtype.kind in "bui", (ids.shape, ids.dtype)
    seeds = make.labels()
    return Reader(seeds, files(seeds + make.images()), dict(
        read_label=lambda path: checked(masks.read_label(path)),
        halve=lambda path: converters.halve_image(path, "ids"),
        train_ids=lambda path: converters.to_train_ids(path, converters.CITYSCAPES_FILE_IDS),
        read_pair=lambda path: frames.read_pair(image, path, coding())), SUFFIXES)


def class_lists(folder):
    import random
    import label_cases
    from causal_tune.data.labels import own_space
    texts = [case.text for rng in [random.Random(0)] for made in label_cases.READ + [label_cases.wrong_list] * 3 for case in [made(rng) for _ in range(6)]]
    seeds = [text if isinstance(text, bytes) else text.encode() for text in texts]
    def checked(path):
        space = own_space(path)
        assert len(space) == len(set(space.classes)) >= 2 and set(space.table.values()) <= {*range(len(space)), 255}, space
    return Reader(seeds, files(seeds), dict(own_space=checked), (".txt", ".csv", ".json"), "classes")


def polygons(folder):
    from causal_tune.data import converters
    def painted(path):
        converters.draw_polygon_file(path)
        shapes = [item["polygon"] for item in json.loads(path.read_text())["objects"] if not item.get("deleted")]
        corners = [shape[key] for shape, key in damage.places(shapes)]
        assert all(math.isfinite(x) for x in corners if type(x) is float), "a corner that is not finite"
    seeds = [as_json(make.POLYGONS)]
    return Reader(seeds, files(seeds), dict(paint_file=painted), (".json",), "aachen_gtFine_polygons")


def data_sets(folder):
    "Data sets with one damaged file."
    from causal_tune.data import converters
    base = folder / "data"
    towns = "cityscapes/gtFine/train/a", "cityscapes/leftImg8bit/train/a"
    for place in ("gta/images", "gta/labels", *towns): (base / place).mkdir(parents=True)
    for place in ("gta/images/1.png", "gta/images/2.png", f"{towns[1]}/1_leftImg8bit.png"):
        (base / place).write_bytes(make.picture(size=(12, 9)))
    def put(place, path): (base / place).write_bytes(path.read_bytes())
    def prepared(name, place, target):
        def read(path):
            put(place, path)
            (base / target).unlink(missing_ok=True)
            return converters.prepare(name, base, 1)
        return read
    def checked(path):
        put("gta/labels/1_labelTrainIds.png", path)
        return str(converters.check_data("gta", base))
    seeds = make.labels() + [as_json(make.POLYGONS)] * 4
    return Reader(seeds, files(seeds), dict(
        gta=prepared("gta", "gta/labels/1.png", "gta/labels/1_labelTrainIds.png"),
        cityscapes=prepared("cityscapes", f"{towns[0]}/1_gtFine_polygons.json", f"{towns[0]}/1_gtFine_labelTrainIds.png"),
        check_data=checked), (".png",), "1", many=True)


# --- weights and runs --------------------------------------------------------------------------------------------------

def tensors(rng):
    "Unexpected values in a weight file."
    kinds = (lambda: torch.zeros(0), lambda: torch.ones(2, 3), lambda: torch.full((16,), torch.nan), lambda: torch.tensor(1.),
             lambda: torch.ones(4, dtype=torch.int64), lambda: torch.ones(3, dtype=torch.complex64), lambda: torch.ones(2, dtype=torch.bool),
             lambda: torch.zeros(1).expand(10 ** 6, 10 ** 6), lambda: torch.nn.Parameter(torch.ones(1)), lambda: torch.float16,
             lambda: {1, 2}, lambda: b"x", lambda: torch.Size([2]))
    return rng.choice(kinds)() if rng.random() < .6 else damage.any_value(rng)


def stored(rng, given):
    "Contents that are damaged and then saved, or a file that is damaged."
    if isinstance(given, bytes): return damage.damage_file(rng, given)
    if rng.random() < .9: given = damage.damage_tree(rng, given, tensors)
    if rng.random() < .2 and (safe := as_safetensors(given)): return safe
    given = make.saved(given, rng.random() < .8)
    return given if rng.random() < .7 else damage.damage_file(rng, given)


def as_safetensors(given) -> bytes | None: # None where it knows none of it
    if not isinstance(given, dict): return None
    named = {str(k): v for k, v in given.items() if isinstance(v, torch.Tensor) and v.numel() < 10 ** 5}
    try: return make.safetensors({k: v.detach().contiguous().clone() for k, v in named.items()}) if named else None
    except (ValueError, TypeError, RuntimeError): return None


def vit():
    from timm.models.vision_transformer import VisionTransformer
    torch.manual_seed(0)
    sizes = dict(img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2)
    return VisionTransformer(**sizes, num_classes=0, global_pool="", dynamic_img_size=True)


HEAD = "mask2former:width=32,num_heads=2,encoder_layers=1,decoder_layers=1,encoder_hidden=8,decoder_hidden=8,points=8"

def weights(folder):
    from causal_tune.published import checkpoints as C
    from causal_tune.models.pretrained import load_weights
    from causal_tune.models.segmentor import create_segmentor
    model = vit()
    plain = dict(model.state_dict())
    segmentor = create_segmentor(vit(), "causal_tune:variant=released,num_tokens=4,rank=2", HEAD, 5, query_dim=32).eval()
    whole, part = (C.published_state(segmentor, backbone) for backbone in (True, False))
    facebook = {k.replace("blocks.", "blocks.0."): v for k, v in plain.items()} | dict(mask_token=torch.zeros(1, 16))
    training = dict(teacher={f"backbone.{k}": v for k, v in plain.items()})
    contents = [plain, dict(model=plain), facebook, training, whole, dict(state_dict=whole, meta=dict(epoch=1)), dict(state_dict=part)]
    backbone = folder / "backbone.pth"
    backbone.write_bytes(make.saved(plain))
    return Reader([*contents, *contents, *make.hostile(), *make.old()], stored, dict(
        read_weights=C.read_weights, backbone_weights=C.backbone_weights, load_weights=lambda path: load_weights(model, path),
        convert_backbone=lambda path: C.convert_backbone(path, folder / "out.safetensors", 32, 48),
        load_published=lambda path: C.load_published(segmentor, path, backbone),
        segmentor_from_published=lambda path: C.segmentor_from_published(path, 2, 32, 2, backbone=backbone)),
        (".pth", ".pth", ".pt", ".bin", ".safetensors"))


def run_of():
    "A recipe of seconds, its segmentor and its optimizer."
    from causal_tune.training.recipe import get_recipe
    from causal_tune.training.build import build_segmentor, parameter_groups
    recipe = get_recipe("demo", weights="random", head="linear", adapter="rein", rank=1, num_tokens=2, crop=(32, 48), batch_size=2,
                        precision="no", iterations=9, train="toyscapes:domain=clear,split=train,n=4",
                        targets=("toyscapes:domain=fog,split=test,n=1",))
    segmentor = build_segmentor(recipe, 19)
    return recipe, segmentor, torch.optim.AdamW(parameter_groups(segmentor, .05), lr=recipe.lr)


def checkpoint_of(recipe, segmentor):
    from causal_tune.training.recipe import recipe_to_dict
    from causal_tune.data.labels import CITYSCAPES
    facts = dict(recipe=recipe_to_dict(recipe), classes=list(CITYSCAPES.classes), iteration=9, version="0.1.0")
    return facts | segmentor.trained_state()


def recipe_first(rng, given):
    "In a checkpoint it is the recipe that is damaged most."
    if isinstance(given, bytes) or rng.random() < .4: return stored(rng, given)
    return make.saved(given | dict(recipe=damage.damage_tree(rng, given["recipe"], tensors)))


def small(content): # without its large tensors
    return {k: {n: v for n, v in part.items() if v.numel() < 9000} if k in ("adapter", "head") else part for k, part in content.items()}

def checkpoints(folder):
    from causal_tune.training import checkpoint as training
    recipe, segmentor, _ = run_of()
    content = small(checkpoint_of(recipe, segmentor))
    seeds = [content] * 60 + make.hostile() + make.old()
    return Reader(seeds, recipe_first, dict(read_checkpoint=training.read_checkpoint), (".pt",), "checkpoint")


def models(folder):
    "Checkpoints that are made into models."
    from causal_tune.training import checkpoint as training
    recipe, segmentor, _ = run_of()
    seeds = [checkpoint_of(recipe, segmentor)] * 100 + make.hostile()
    return Reader(seeds, recipe_first, dict(
        load_checkpoint=training.load_checkpoint, finished=lambda path: training.load_finished(path, recipe)), (".pt",), "checkpoint")


def resumed(folder):
    from causal_tune.training import checkpoint as training
    recipe, segmentor, optimizer = run_of()
    content = checkpoint_of(recipe, segmentor) | dict(optimizer=optimizer.state_dict())
    del content["classes"]
    def restored(path): return training.load_resume(path, segmentor, optimizer, recipe, training.EMA(segmentor, None))
    return Reader([content] * 60 + make.hostile(), recipe_first, dict(restore=restored), (".pt",), "resume")


def logs(folder):
    from causal_tune.training.checkpoint import Log
    def opened(path): Log(path.parent, 8).close()
    return Reader([make.LOG], files([make.LOG, make.TABLE]), dict(Log=opened), (".csv",), "log")


# --- results -----------------------------------------------------------------------------------------------------------

def results(folder):
    "Files of a finished run of a comparison."
    from causal_tune.compare import grid as benchmark
    from causal_tune.training.recipe import recipe_to_dict
    recipe, *_ = run_of()
    seeds = [as_json(dict(recipe=recipe_to_dict(recipe), options={}, rows=make.ROWS))]
    return Reader(seeds, files(seeds), dict(read_run=lambda path: benchmark.read_run(path, recipe)), (".json",), "results")


def measured(folder):
    "A measured band; one that cannot be read may be measured again, which is cut off."
    from causal_tune.spectra import bands
    from causal_tune.compare import experiments as quality
    from causal_tune.training.recipe import recipe_to_dict
    recipe, *_ = run_of()
    quality.suggest_band = quality.load_dataset = quality.build_segmentor = reached
    seeds = [as_json(dict(band="ideal:low=0.2,high=0.7", recipe=recipe_to_dict(recipe)))]
    def band(path): return bands.create_band(quality.measure_band(recipe, path.parent)[0])
    return Reader(seeds, files(seeds), dict(measured_band=band), (".json",), "band")


def counts(folder):
    from causal_tune.research import statistics as results
    for name in ("none-1", "rein-1"): (folder / name).mkdir()
    (folder / "none-1" / "counts.npz").write_bytes(make.counts())
    rows = [dict(adapter="none", seed=1), dict(adapter="rein", seed=1)]
    def scored(path):
        path.replace(folder / "rein-1" / "counts.npz")
        return results.paired_differences(results.bootstrap_runs(folder, rows, 2))
    seeds = [make.counts()] * 5 + make.strange_arrays() + make.hostile()[:10]
    return Reader(seeds, files(seeds), dict(scores_of=scored), (".npz",), "counts")


def tables(folder):
    from causal_tune.research import statistics as results
    return Reader([make.TABLE], files([make.TABLE, make.LOG]), dict(read_table=results.read_table), (".csv",), "quality_toy_differences")


def rows(folder):
    from causal_tune.research import statistics as results
    return Reader([make.ROWS], tree, dict(check_rows=results.check_rows, summary=results.summary))


# --- words and values --------------------------------------------------------------------------------------------------

def specs(folder):
    import causal_tune.models.backbones  # noqa: F401  # registers all adapters
    from causal_tune.adapters import base as adapters
    from causal_tune.spectra import bands
    from causal_tune.core import registry as core
    from causal_tune.data import corruptions, datasets
    from causal_tune.models import heads
    from causal_tune.data import augment as styles
    def band(spec):
        made = bands.create_band(spec)
        assert made(3, 4).isfinite().all(), made
    return Reader(list(make.SPECS), text, dict(
        parse_spec=core.parse_spec, create_band=band, read_spec=datasets.parse_dataset_spec, create_style=styles.create_style,
        read_corruption=corruptions.parse_corruption, load_dataset=lambda spec: datasets.load_dataset(spec, folder / "none"),
        create_adapter=lambda spec: adapters.create_adapter(spec, 2, 16, query_dim=8),
        create_head=lambda spec: heads.create_head(spec, 16, 3)))


def recipes(folder):
    from causal_tune.training import recipe as R
    plain = R.recipe_to_dict(R.Recipe())
    whole = [R.recipe_to_dict(r) for r in R.RECIPES.values()]
    changes = [{name: v for name, v in r.items() if v != plain[name]} for r in whole]
    def again(r): assert R.recipe_from_dict(json.loads(json.dumps(R.recipe_to_dict(r)))) == r, "another recipe, written and read again"
    def named(changes): again(R.get_recipe("demo", **changes) if isinstance(changes, dict) else R.Recipe())
    return Reader(whole + changes, lambda rng, given: damage.damage_tree(rng, given, tensors),
                  dict(from_dict=lambda d: again(R.recipe_from_dict(d)), get_recipe=named))


def fields(folder):
    from causal_tune.training import recipe as R
    names = [f.name for f in R.fields(R.Recipe)]
    def read(line):
        name, _, value = line.partition(" ")
        R.get_recipe("demo", **{name: R.parse_field(name, value)})
    return Reader([f"{name} {value}" for name in names for value in make.FIELDS], text, dict(read_field=read))


def labs(folder):
    from causal_tune.models.backbones import create_backbone
    from causal_tune.lab.widget import FrequencyLab
    torch.manual_seed(0)
    pictures = {d: torch.randint(255, (2, 3, 32, 48), dtype=torch.uint8) for d in ("clear", "fog")}
    lab = FrequencyLab(create_backbone(vit()), pictures)
    def put(state):
        before = lab.state
        try: lab.state = state
        except ValueError:
            assert lab.state == before, "a state that is refused changes the lab"
            raise
        json.dumps(lab.state, allow_nan=False)
    seeds = [lab.state, dict(filter="gaussian", cuts=[.4, .6]), dict(domain="fog", layer=1), dict(coefficient=[1, 1])]
    return Reader(seeds, tree, dict(state=put))


def notebooks(folder):
    "The notebook that an earlier `causal-tune lab` wrote."
    from causal_tune.lab import launch as lab
    whole = lab.lab_notebook(folder / "made", {})
    seeds = [whole.read_bytes()]
    def opened(path):
        found = lab.lab_notebook(path.parent, dict(n=3))
        if found != path: found.unlink()
    return Reader(seeds, files(seeds), dict(lab_notebook=opened), (".ipynb",), "frequency_lab")


FIRST = {"train": ["demo"], "eval": ["checkpoint.pt"], "predict": ["checkpoint.pt", "image.png"], "predict-acdc": ["checkpoint.pt"],
         "convert-backbone": ["checkpoint.pt", "out.pth", "--height", "32", "--width", "32"], "prepare": ["gta"], "check-data": ["gta"]}
VALUES = [*make.FIELDS, *make.SPECS, "demo", "camvid_day2dusk", "toyscapes", "camvid", "gta", "cityscapes", "mapillary-half", "1", "3",
          "none", "rein", "checkpoint.pt", "image.png", "cut.png", "out", "x.html", "x.zip", "--help", "--", "-1", "nan"]

def words(folder):
    "Command lines; the command's work is replaced by a stub."
    from causal_tune.cli import entry as cli
    from causal_tune.lab import launch as lab
    from causal_tune.compare import experiments as quality
    from causal_tune.training import loop as training
    for module, name in ((training.Run, "loop"), (training, "evaluate"), (quality, "run_grid"), (lab, "open_lab"), (lab, "launch_lab"),
                         (quality, "measured_band")): setattr(module, name, reached)
    cli.subprocess = SimpleNamespace(run=reached)
    recipe, segmentor, _ = run_of()
    (folder / "checkpoint.pt").write_bytes(make.saved(checkpoint_of(recipe, segmentor)))
    (folder / "image.png").write_bytes(make.picture())
    (folder / "cut.png").write_bytes(make.picture()[:60])
    options = {name: [n for names, _ in c.arguments for n in names if n.startswith("--")] + [f"--{f}" for f in c.fields]
               for name, c in ((name, cli.COMMANDS[name]) for name in cli.COMMANDS.names())}
    def line(rng, command):
        given = [command, *FIRST.get(command, [])]
        for _ in range(rng.randrange(5)):
            given.append(rng.choice(options[command] or ["--x"]))
            given += [rng.choice(VALUES) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        if rng.random() < .5: given[rng.randrange(len(given))] = damage.damage_text(rng, rng.choice(given))
        if rng.random() < .2: del given[rng.randrange(len(given))]
        return [word.replace("\0", "") for word in given] # no shell hands that over
    return Reader(list(options), line, dict(main=called))


def called(line):
    "The command line. Raises AssertionError unless it ends with 0, 1 (problems found) or 2 and one line."
    from causal_tune import cli
    with said() as errors:
        try: status = cli.main(line)
        except SystemExit as stop: status = stop.code or 0
    assert status in (0, 1, 2), f"status {status}"
    lines = [x for x in errors[0].splitlines() if not x.startswith(("usage:", " ", "\t"))]
    fits = len(lines) == 1 and len(lines[0]) <= LONGEST
    assert status < 2 or fits, f"{len(lines)} lines, {max(map(len, lines), default=0)} characters: {lines[-1:]}"


@contextmanager
def said():
    "Context manager: capture standard error; yields a list that contains it afterwards."
    found = []
    before, sys.stderr = sys.stderr, StringIO()
    try: yield found
    finally:
        found.append(sys.stderr.getvalue())
        sys.stderr = before


READERS = dict(images=images, labels=labels, classes=class_lists, polygons=polygons, datasets=data_sets, weights=weights, checkpoints=checkpoints,
               models=models, resume=resumed, log=logs, results=results, band=measured, counts=counts,
               tables=tables, rows=rows, specs=specs, recipes=recipes, fields=fields, lab=labs, notebooks=notebooks, words=words)
SLOW = dict(datasets=.3, checkpoints=.5, models=.1, resume=.3, log=.3, counts=.5, tables=.15, lab=.1, notebooks=.5,
            words=.15)
SHARES = {name: SLOW.get(name, 1.) for name in READERS} # of the inputs, relative to a quick reader's
