"""What do the readers make of damaged and hostile inputs? `python tests/fuzz.py [--n 100000] [--seed 0] [--only images,weights] [--keep DIR]`

Every input is made from a whole or hostile one of `corpus/make.py` by `corpus/damage.py`, and follows from seed, reader and number
alone: `--at NUMBER` makes one again and shows its traceback. It is held if the reader gives a value, or one of the errors that the
command line turns into a line: one line of at most 500 characters, which names the file and advises nothing unsafe. Not held: any
other error, a crash, no answer in ten seconds, 2 GB of memory, a printed traceback, and what hostile files would do if they were run.
"""
import argparse, json, mmap, os, random, resource, select, shutil, signal, sys, tempfile, time, traceback, warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import Callable, NamedTuple

os.environ |= dict(OMP_NUM_THREADS="1", TQDM_DISABLE="1", ACCELERATE_USE_CPU="true", HF_HUB_OFFLINE="1", CUDA_VISIBLE_DEVICES="")
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "corpus"), str(HERE.parent)]
import damage, make
import numpy as np
import torch
import causal_tune

PACKAGE = Path(causal_tune.__file__).parent
EXPECTED = (ValueError, OSError, FloatingPointError)
LONGEST = 500  # characters of a message, besides the folder of the file
UNSAFE = ("weights_only", "arbitrary code", "trusted source")
SECONDS, BYTES = 10, 2 << 30
BATCH = 400  # inputs of a process


class Reader(NamedTuple):
    seeds: list  # whole and hostile inputs
    damage: Callable  # (rng, one of them) -> an input
    reads: dict  # name -> function that reads an input; for files, its path
    suffixes: tuple = ()  # of the file that the input is written to; none: it is read as it is
    share: float = 1  # of the inputs, as a multiple of a fast reader's
    many: bool = False  # whether its messages list files, one a line
    name: str | None = None  # of the file, if it needs a certain one


class Enough(BaseException):
    "The work itself was reached."


class TooLong(BaseException): pass


def reached(*args, **kwargs): raise Enough


# --- readers -----------------------------------------------------------------------------------------------------------

def files(seeds): return lambda rng, given: damage.damage_file(rng, given, seeds)
def tree(rng, given): return damage.damage_tree(rng, given)
def text(rng, given): return damage.damage_text(rng, given)
def as_json(value): return json.dumps(value, indent=1).encode()


SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm")

def images(folder, canary):
    from causal_tune import converters, datasets, images, observation
    label = folder / "whole_label.png"
    label.write_bytes(make.labels()[0])
    def beside(path): return observation.gather({"a": [folder / "whole.png", path]}, (8, 8))
    (folder / "whole.png").write_bytes(make.picture())
    def checked(image):
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3 and image.size, image.shape
    seeds = make.images()
    return Reader(seeds, files(seeds), dict(
        read_image=lambda path: checked(images.read_image(path)), gather=beside, halve=converters.halve,
        read_pair=lambda path: datasets.read_pair(path, label, {i: i for i in range(19)})), SUFFIXES)


def labels(folder, canary):
    from causal_tune import converters, datasets, domains, images
    image = folder / "whole.png"
    image.write_bytes(make.picture(size=(12, 9)))
    def checked(ids): assert ids.ndim == 2 and ids.dtype.kind in "bui", (ids.shape, ids.dtype)
    seeds = make.labels()
    return Reader(seeds, files(seeds + make.images()), dict(
        read_label=lambda path: checked(images.read_label(path)), halve=lambda path: converters.halve(path, "ids"),
        train_ids=lambda path: converters.train_ids(path, domains.CITYSCAPES_IDS, 66),
        read_pair=lambda path: datasets.read_pair(image, path, {i: i for i in range(19)})), SUFFIXES)


def polygons(folder, canary):
    from causal_tune import converters
    def painted(path):
        converters.paint_file(path)
        shapes = [item["polygon"] for item in json.loads(path.read_text())["objects"] if not item.get("deleted")]
        assert np.isfinite([float(x) for shape in shapes for point in shape for x in point]).all(), "a corner that is not finite"
    seeds = [as_json(make.POLYGONS)]
    return Reader(seeds, files(seeds), dict(paint_file=painted), (".json",), name="aachen_gtFine_polygons")


def trees_of_files(folder, canary):
    "Data sets with one damaged file."
    from causal_tune import converters
    base = folder / "data"
    for name in ("gta/images", "gta/labels", "cityscapes/gtFine/train/a", "cityscapes/leftImg8bit/train/a"): (base / name).mkdir(parents=True)
    for place in ("gta/images/1.png", "gta/images/2.png", "cityscapes/leftImg8bit/train/a/1_leftImg8bit.png"):
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
        gta=prepared("gta", "gta/labels/1.png", "gta/labels/1_labelTrainIds.png"), check_data=checked,
        cityscapes=prepared("cityscapes", "cityscapes/gtFine/train/a/1_gtFine_polygons.json", "cityscapes/gtFine/train/a/1_gtFine_labelTrainIds.png")),
        (".png",), .3, many=True, name="1")


def tensors(rng):
    "Values of a weight file that nobody expects."
    kinds = (lambda: torch.zeros(0), lambda: torch.ones(2, 3), lambda: torch.full((16,), torch.nan), lambda: torch.ones(4, dtype=torch.int64),
             lambda: torch.tensor(1.), lambda: torch.ones(3, dtype=torch.complex64), lambda: torch.ones(2, dtype=torch.bool), lambda: torch.float16,
             lambda: torch.zeros(1).expand(10 ** 6, 10 ** 6), lambda: torch.nn.Parameter(torch.ones(1)), lambda: {1, 2}, lambda: b"x", lambda: torch.Size([2]))
    return rng.choice(kinds)() if rng.random() < .6 else damage.any_value(rng)


def stored(rng, given):
    "Contents that are damaged and then saved, or a file that is damaged."
    if isinstance(given, dict):
        if rng.random() < .9: given = damage.damage_tree(rng, given, tensors)
        if isinstance(given, dict) and rng.random() < .2 and given and all(isinstance(v, torch.Tensor) for v in given.values()):
            try: return make.safetensors({str(k): v.detach().contiguous().clone() for k, v in given.items() if v.numel() < 10 ** 5})
            except (ValueError, TypeError, RuntimeError): pass # of a kind that it does not know
        given = make.saved(given, rng.random() < .8)
        if rng.random() < .7: return given
    return damage.damage_file(rng, given)


def vit(**options):
    from timm.models.vision_transformer import VisionTransformer
    torch.manual_seed(0)
    return VisionTransformer(img_size=32, patch_size=16, embed_dim=16, depth=2, num_heads=2, num_classes=0, global_pool="", dynamic_img_size=True, **options)


HEAD = "mask2former:width=32,num_heads=2,encoder_layers=1,decoder_layers=1,encoder_hidden=8,decoder_hidden=8,points=8"

def weights(folder, canary):
    from causal_tune import checkpoints as C
    from causal_tune.backbones import create_backbone, load_weights
    from causal_tune.segmentor import create_segmentor
    model = vit(class_token=True)
    timm_state = model.state_dict()
    segmentor = create_segmentor(vit(), "causal_tune:variant=released,num_tokens=4,rank=2", HEAD, 5, query_dim=32).eval()
    whole = C.published_state(segmentor, backbone=True)
    part = C.published_state(segmentor)
    facebook = {k.replace("blocks.", "blocks.0."): v for k, v in timm_state.items()} | dict(mask_token=torch.zeros(1, 16))
    contents = [dict(timm_state), dict(model=dict(timm_state)), facebook, dict(teacher={f"backbone.{k}": v for k, v in timm_state.items()}),
                dict(whole), dict(state_dict=dict(whole), meta=dict(epoch=1)), dict(state_dict=dict(part))]
    (folder / "backbone.pth").write_bytes(make.saved(timm_state))
    def converted(path): return C.convert_backbone(path, folder / "out.safetensors", 32, 48)
    return Reader([*contents, *contents, *make.hostile(canary), *make.old()], stored, dict(
        read_weights=C.read_weights, backbone_weights=C.backbone_weights, load_weights=lambda path: load_weights(model, path),
        convert_backbone=converted, load_published=lambda path: C.load_published(segmentor, path, folder / "backbone.pth"),
        segmentor_from_published=lambda path: C.segmentor_from_published(path, 2, 32, 2, backbone=folder / "backbone.pth")),
        (".pth", ".pth", ".pt", ".bin", ".safetensors"))


def run_of(folder):
    "A recipe of seconds, its segmentor and its optimizer."
    from causal_tune.recipes import get_recipe
    from causal_tune.training import build, parameter_groups
    recipe = get_recipe("demo", weights="random", head="linear", adapter="rein", rank=1, num_tokens=2, crop=(32, 48), batch_size=2, precision="no",
                        iterations=9, train="toyscapes:domain=clear,split=train,n=4", targets=("toyscapes:domain=fog,split=test,n=1",))
    segmentor = build(recipe, 19)
    optimizer = torch.optim.AdamW(parameter_groups(segmentor, .05), lr=recipe.lr)
    return recipe, segmentor, optimizer


def checkpoint_of(folder):
    from causal_tune.recipes import to_dict
    from causal_tune.domains import CITYSCAPES
    recipe, segmentor, optimizer = run_of(folder)
    parts = {name: {k: v for k, v in state.items() if v.numel() < 9000} for name, state in segmentor.trained_state().items()}
    return dict(recipe=to_dict(recipe), classes=list(CITYSCAPES.classes), iteration=9, version="0.1.0", **parts), recipe, segmentor, optimizer


def recipe_first(rng, given):
    "The recipe of a checkpoint is what matters."
    if isinstance(given, dict) and "recipe" in given and rng.random() < .6:
        return stored(rng, given | dict(recipe=damage.damage_tree(rng, given["recipe"], tensors)) | {}) if rng.random() < .3 else \
            make.saved(given | dict(recipe=damage.damage_tree(rng, given["recipe"], tensors)))
    return stored(rng, given)


def checkpoints(folder, canary):
    from causal_tune import training
    content, *_ = checkpoint_of(folder)
    return Reader([content] * 60 + make.hostile(canary) + make.old(), recipe_first, dict(read_checkpoint=training.read_checkpoint), (".pt",), .5, name="checkpoint")


def models(folder, canary):
    "Checkpoints that are made into models."
    from causal_tune import training
    content, recipe, segmentor, _ = checkpoint_of(folder)
    content |= segmentor.trained_state()
    return Reader([content] * 100 + make.hostile(canary), recipe_first, dict(
        load_checkpoint=training.load_checkpoint, finished=lambda path: training.finished(path, recipe)), (".pt",), .1, name="checkpoint")


def resumed(folder, canary):
    from causal_tune import training
    content, recipe, segmentor, optimizer = checkpoint_of(folder)
    content |= segmentor.trained_state() | dict(optimizer=optimizer.state_dict())
    del content["classes"]
    def restored(path): return training.restore(path.parent, segmentor, optimizer, recipe)
    return Reader([content] * 60 + make.hostile(canary), recipe_first, dict(restore=restored), (".pt",), .5, name="resume")


def logs(folder, canary):
    from causal_tune.training import Log
    def opened(path): Log(path.parent, 8).close()
    return Reader([make.LOG], files([make.LOG, make.TABLE]), dict(Log=opened), (".csv",), .3, name="log")


def results(folder, canary):
    "What a finished run of a comparison leaves."
    from causal_tune import benchmark
    from causal_tune.recipes import to_dict
    recipe, *_ = run_of(folder)
    seeds = [as_json(dict(recipe=to_dict(recipe), options={}, rows=make.ROWS))]
    return Reader(seeds, files(seeds), dict(read_run=lambda path: benchmark.read_run(path, recipe, {})), (".json",), name="results")


def measured(folder, canary):
    "A measured band; one that cannot be read may be measured again, which is cut off."
    from causal_tune import bands, quality
    from causal_tune.recipes import to_dict
    recipe, *_ = run_of(folder)
    quality.suggest_band = quality.load_dataset = quality.build = reached
    seeds = [as_json(dict(band="ideal:low=0.2,high=0.7", recipe=to_dict(recipe)))]
    return Reader(seeds, files(seeds), dict(measured_band=lambda path: bands.create_band(quality.measured_band(recipe, path.parent))), (".json",), name="band")


def counts(folder, canary):
    from causal_tune import results
    (folder / "none-1").mkdir()
    (folder / "none-1" / "counts.npz").write_bytes(make.counts())
    rows = [dict(adapter="none", seed=1), dict(adapter="rein", seed=1)]
    def scored(path):
        (folder / "rein-1").mkdir(exist_ok=True)
        path.replace(folder / "rein-1" / "counts.npz")
        return results.differences(results.scores_of(folder, rows, 2))
    seeds = [make.counts()] * 5 + make.strange_arrays() + make.hostile(canary)[:30]
    return Reader(seeds, files(seeds), dict(scores_of=scored), (".npz",), .5, name="counts")


def tables(folder, canary):
    from causal_tune import lab, results
    def shown(path): # as the lab does
        for name, table in lab.read_results(path.parent).items():
            for reference in table.reference.unique():
                lab.difference_plot(table[table.reference == reference], reference, lab.panels(table.domain.unique()), name)
    return Reader([make.TABLE], files([make.TABLE, make.LOG]), dict(read_table=results.read_table, read_results=shown),
                  (".csv",), name="quality_toy_differences")


def specs(folder, canary):
    from causal_tune import adapters, bands, core, corruptions, datasets, heads, styles
    import causal_tune.backbones  # registers all adapters
    from causal_tune.backbones import create_backbone
    def band(spec):
        made = bands.create_band(spec)
        assert made(3, 4).isfinite().all(), made
    return Reader(list(make.SPECS), text, dict(
        parse_spec=core.parse_spec, create_band=band, read_spec=datasets.read_spec, load_dataset=lambda spec: datasets.load_dataset(spec, folder / "none"),
        create_adapter=lambda spec: adapters.create_adapter(spec, 2, 16, query_dim=8), create_head=lambda spec: heads.create_head(spec, 16, 3),
        create_style=styles.create_style, read_corruption=corruptions.read_corruption))


def recipes(folder, canary):
    from causal_tune import recipes as R
    changes = [{f: v for f, v in R.to_dict(r).items() if v != R.to_dict(R.Recipe())[f]} for r in R.RECIPES.values()]
    def again(r): assert R.from_dict(json.loads(json.dumps(R.to_dict(r)))) == r, "another recipe, written and read again"
    return Reader([R.to_dict(r) for r in R.RECIPES.values()] + changes, lambda rng, given: damage.damage_tree(rng, given, tensors), dict(
        from_dict=lambda d: again(R.from_dict(d)), get_recipe=lambda d: again(R.get_recipe("demo", **d)) if isinstance(d, dict) else None))


def fields(folder, canary):
    from causal_tune import recipes as R
    names = [f.name for f in R.fields(R.Recipe)]
    def read(words):
        name, _, value = words.partition(" ")
        given = R.read_field(name, value)
        R.get_recipe("demo", **{name: given})
    return Reader([f"{name} {value}" for name in names for value in make.FIELDS], text, dict(read_field=read))


def rows(folder, canary):
    from causal_tune import results
    return Reader([make.ROWS], tree, dict(check_rows=results.check_rows, summary=results.summary, collapsed=lambda r: results.collapsed(r, dict(all=["clear", "fog"])) if r == make.ROWS else None))


def labs(folder, canary):
    from causal_tune.lab import FrequencyLab
    from causal_tune.backbones import create_backbone
    (folder / "quality_toy_differences.csv").write_bytes(make.TABLE)
    torch.manual_seed(0)
    pictures = {d: torch.randint(255, (2, 3, 32, 48), dtype=torch.uint8) for d in ("clear", "fog")}
    lab = FrequencyLab(create_backbone(vit()), pictures, results=folder)
    def put(state):
        before = lab.state
        try: lab.state = state
        except ValueError:
            assert lab.state == before, "a state that is refused changes the lab"
            raise
        json.dumps(lab.state)
    return Reader([lab.state, dict(filter="gaussian", cuts=[.4, .6]), dict(filter="none"), dict(domain="fog", layer=1), dict(coefficient=[1, 1])], tree, dict(state=put), share=.1)


def words(folder, canary):
    "Words of the command line, whose work is cut off where it would begin."
    from causal_tune import benchmark, cli, demo, lab, quality, toyvit, training
    import subprocess
    content, recipe, segmentor, _ = checkpoint_of(folder)
    content |= segmentor.trained_state()
    (folder / "checkpoint.pt").write_bytes(make.saved(content))
    (folder / "image.png").write_bytes(make.picture())
    (folder / "cut.png").write_bytes(make.picture()[:60])
    training.Run.loop = training.evaluate = demo.run_grid = quality.measured_band = toyvit.pretext_sample = lab.open_lab = subprocess.call = reached
    quality.run_grid = reached
    commands = {name: [n for names, _ in c.options for n in names if n.startswith("--")] + [f"--{f}" for f in c.takes] for name, c in cli.COMMANDS.items()}
    values = [*make.FIELDS, *make.SPECS, "demo", "camvid_day2dusk", "toyscapes", "camvid", "gta", "cityscapes", "mapillary-half", "1", "3", "none", "rein",
              "checkpoint.pt", "image.png", "cut.png", "out", "x.html", "x.zip", "--help", "--", "-1", "nan"]
    first = {"train": ["demo"], "eval": ["checkpoint.pt"], "predict": ["checkpoint.pt", "image.png"], "predict-acdc": ["checkpoint.pt"],
             "convert-backbone": ["checkpoint.pt", "out.pth", "--height", "32", "--width", "32"], "prepare": ["gta"], "check-data": ["gta"]}
    def some(rng, command):
        line = [command, *first.get(command, [])]
        for _ in range(rng.randrange(5)):
            line.append(rng.choice(commands[command] or ["--x"]))
            line += [rng.choice(values) for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        if rng.random() < .5: line[rng.randrange(len(line))] = damage.damage_text(rng, rng.choice(line))
        if rng.random() < .2: del line[rng.randrange(len(line))]
        return [w.replace("\0", "") for w in line] # what no shell hands over
    def run(line):
        with said() as errors:
            try: status = cli.main(line)
            except SystemExit as stop: status = stop.code or 0
        assert status in (0, 1, 2), f"status {status}"
        lines = [x for x in errors[0].splitlines() if not x.startswith(("usage:", " ", "\t"))]
        if status: assert len(lines) == 1 and len(lines[0]) <= LONGEST, f"{len(lines)} lines, {max(map(len, lines), default=0)} characters: {lines[-1:]}"
    return Reader(list(commands), some, dict(main=run), share=.2)


READERS = dict(images=images, labels=labels, polygons=polygons, datasets=trees_of_files, weights=weights, checkpoints=checkpoints, models=models, resume=resumed,
               log=logs, results=results, band=measured, counts=counts, tables=tables, specs=specs, recipes=recipes, fields=fields, rows=rows, lab=labs, words=words)


# --- one input ---------------------------------------------------------------------------------------------------------

class Verdict(NamedTuple):
    read: str  # which function read it
    kind: str  # empty if it was held
    where: str  # innermost function of the package
    said: str


@contextmanager
def said():
    "What is written to standard error inside; yields a list that holds it afterwards."
    from io import StringIO
    before, sys.stderr = sys.stderr, StringIO()
    found = []
    try: yield found
    finally:
        found.append(sys.stderr.getvalue())
        sys.stderr = before


def made(reader: Reader, name: str, seed: int, number: int):
    "An input, and what is drawn beside it."
    rng = random.Random(f"{seed} {name} {number}")
    given = rng.choice(reader.seeds)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try: given = reader.damage(rng, given)
    finally: sys.setrecursionlimit(before)
    return given, rng.choice(reader.suffixes) if reader.suffixes else "", rng.choice(list(reader.reads))


def judged(reader, name, seed, number, folder, canary) -> Verdict:
    given, suffix, read = made(reader, name, seed, number)
    path = folder / f"{reader.name or 'in'}{suffix}"
    if reader.suffixes:
        if isinstance(given, dict): given = make.saved(given)
        path.write_bytes(given)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kind, where, message = "", "", ""
    try: reader.reads[read](path if reader.suffixes else given)
    except Enough: pass
    except EXPECTED as err:
        message = str(err).replace(str(folder) + "/", "")
        kind, where = faults(err, message, path if reader.suffixes else None, reader.many), place(err)
    except TooLong as err: kind, where = "no answer", place(err)
    except AssertionError as err: kind, where, message = "wrong value", read, str(err)
    except BaseException as err: kind, where, message = type(err).__name__, place(err), str(err)
    finally: signal.setitimer(signal.ITIMER_REAL, 0)
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - most > BYTES >> 10: kind = "memory"
    if os.path.exists(canary):
        kind = "it was run"
        shutil.rmtree(canary) if os.path.isdir(canary) else os.unlink(canary)
    return Verdict(read, kind, where, message[:200])


def faults(err, message, path, many) -> str:
    "What is wrong with a message."
    if not message.strip(): return f"{type(err).__name__} without a word"
    if any(word in message for word in UNSAFE): return "unsafe advice"
    if not many and len(message.strip().splitlines()) > 1: return f"{type(err).__name__} of several lines"
    if max(map(len, message.splitlines())) > LONGEST: return f"{type(err).__name__} too long"
    if path is not None and path.stem not in message: return f"{type(err).__name__} without the file's name"
    return ""


def place(err) -> str:
    frames = [f for f in traceback.extract_tb(err.__traceback__) if Path(f.filename).parent == PACKAGE]
    return f"{Path(frames[-1].filename).stem}.{frames[-1].name}" if frames else "outside"


# --- many --------------------------------------------------------------------------------------------------------------

def quiet(folder):
    "Standard output and error go to a file; returns what asks whether a traceback was printed since it was asked last."
    file = os.open(folder / "printed", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2): os.dup2(file, stream)
    def noisy():
        sys.stdout.flush(), sys.stderr.flush()
        size = os.lseek(file, 0, os.SEEK_CUR)
        if not size: return False
        text = os.pread(file, min(size, 100_000), max(0, size - 100_000))
        os.ftruncate(file, 0)
        os.lseek(file, 0, os.SEEK_SET)
        return b"Traceback (most recent" in text
    return noisy


def limited(): # memory and files of this process
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE if os.path.exists("/proc/self/statm") else 0
    if used: resource.setrlimit(resource.RLIMIT_AS, (used + BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def child(reader, name, seed, first, last, folder, canary, pipe):
    noisy = quiet(folder)
    limited()
    warnings.simplefilter("ignore")
    def stop(*_): raise TooLong
    signal.signal(signal.SIGALRM, stop)
    os.chdir(folder)
    for number in range(first, last):
        verdict = judged(reader, name, seed, number, folder, canary)
        if noisy(): verdict = verdict._replace(kind="a printed traceback")
        os.write(pipe, (json.dumps([number, *verdict]) + "\n").encode())
    os._exit(0)


def batch(reader, name, seed, first, last, folder, canary):
    "Yields numbers and verdicts; a process that dies or hangs is noticed, and the next one goes on behind that input."
    while first < last:
        come, go = os.pipe()
        process = os.fork()
        if not process:
            os.close(come)
            try: child(reader, name, seed, first, min(last, first + BATCH), folder, canary, go)
            except BaseException: traceback.print_exc()
            finally: os._exit(99)
        os.close(go)
        first = yield from received(come, process, first, min(last, first + BATCH))


def received(pipe, process, first, last):
    with os.fdopen(pipe, "rb", buffering=0) as lines:
        text, died = b"", False
        while first < last and not died:
            ready, *_ = select.select([lines], [], [], 3 * SECONDS)
            if not ready: os.kill(process, signal.SIGKILL)
            part = lines.read(65536) if ready else b""
            died = not part
            *whole, text = (text + part).split(b"\n")
            for line in whole:
                number, *verdict = json.loads(line)
                yield number, Verdict(*verdict)
                first = number + 1
        _, status = os.waitpid(process, 0)
    if first < last: # it died of this input
        signal_ = os.waitstatus_to_exitcode(status)
        yield first, Verdict("?", f"crash ({signal_})" if ready else "no answer, killed", "", "")
        first += 1
    return first


def fuzz(names, n: int, seed: int, keep=None, report=print) -> tuple[dict, dict]:
    "Tries n inputs; returns reader -> Counter of held and not held, and distinct failure -> numbers."
    total = sum(SHARES[name] for name in names)
    scores, failures = {}, {}
    for name in names:
        start = time.time()
        with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
            folder = Path(top) / "a" / "b" / "c" / "d" # what leads upwards stays inside
            folder.mkdir(parents=True)
            canary = str(Path(top) / "canary")
            reader = READERS[name](folder, canary)
            count = Counter()
            for number, verdict in batch(reader, name, seed, 0, max(1, round(n * SHARES[name] / total)), folder, canary):
                count["not held" if verdict.kind else "held"] += 1
                if not verdict.kind: continue
                key = (name, verdict.read, verdict.kind, verdict.where)
                failures.setdefault(key, []).append((number, verdict.said))
                if keep and len(failures[key]) == 1: store(Path(keep), reader, name, seed, number)
        scores[name] = count
        seconds = time.time() - start
        tried = sum(count.values())
        report(f"{name:<12}{tried:>8} tried {count['held']:>8} held {count['not held']:>6} not held {tried / seconds:>7.0f}/s", flush=True)
    return scores, failures


SHARES = dict.fromkeys(READERS, 1.) | dict(datasets=.3, checkpoints=.5, models=.1, resume=.3, log=.3, counts=.5, lab=.1, words=.15)


def store(keep: Path, reader, name, seed, number):
    keep.mkdir(parents=True, exist_ok=True)
    given, suffix, read = made(reader, name, seed, number)
    path = keep / f"{name}-{read}-{seed}-{number}{suffix or '.txt'}"
    path.write_bytes(given) if isinstance(given, bytes) else path.write_text(repr(given), errors="backslashreplace")


def again(name, seed, number):
    "One input once more, with its traceback."
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        folder = Path(top) / "a" / "b" / "c" / "d"
        folder.mkdir(parents=True)
        reader = READERS[name](folder, str(Path(top) / "canary"))
        given, suffix, read = made(reader, name, seed, number)
        print(read, suffix, repr(given)[:2000])
        path = folder / f"{reader.name or 'in'}{suffix}"
        if reader.suffixes: path.write_bytes(given)
        os.chdir(folder)
        print("value:", reader.reads[read](path if reader.suffixes else given))


def main(given=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=f"readers, of {','.join(READERS)}")
    parser.add_argument("--keep", metavar="DIR", help="folder for the first input of each failure")
    parser.add_argument("--at", type=int, help="this one alone, with its traceback")
    args = parser.parse_args(given)
    names = args.only.split(",") if args.only else list(READERS)
    if args.at is not None: return again(names[0], args.seed, args.at)
    scores, failures = fuzz(names, args.n, args.seed, args.keep)
    for (name, read, kind, where), found in sorted(failures.items()):
        number, message = found[0]
        print(f"not held: {name} {read}: {kind} in {where or '?'}, {len(found)} times, {message[:120]!r}; --seed {args.seed} --only {name} --at {number}")
    held, lost = (sum(count[what] for count in scores.values()) for what in ("held", "not held"))
    print(f"{held + lost} tried, {held} held, {lost} not held ({len(failures)} kinds)")
    return int(lost > 0)


if __name__ == "__main__": sys.exit(main())
