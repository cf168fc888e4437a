"""Lists of classes and label images as annotation tools write them: `python tests/label_cases.py --n 10000`.

Each case writes a list and a label whose pixels have a known meaning. Output of a tool must be read correctly, anything else must raise
an error, and no pixel may get another class. A case follows from its number."""
import argparse, json, random, sys, tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple
import numpy as np
from PIL import Image

WORDS = ["road", "sky", "car", "Straße", "traffic light", "T-junction", "2-wheeler", "lane 1", "lane 2", "tree (small)", "人行道", "pole", "bike/rack", "Fußgänger",
         "a_b", "X", "truck & trailer", "door's", "3d-box", "level 5 b", "bus", "fence", "wall", "person", "rider", "train", "object", "water", "grass", "roof"]


class Case(NamedTuple):
    text: str | bytes  # of the list of classes
    label: object  # bytes of a file, or an array
    truth: np.ndarray  # (h, w) of names, "" where a pixel is ignored; None where the case must be refused
    kind: str


def voc(i): return tuple(sum((i >> 3 * bit + channel & 1) << 7 - bit for bit in range(8)) for channel in range(3))

def stored(picture, kind="PNG", **options):
    with tempfile.SpooledTemporaryFile() as file:
        picture.save(file, kind, **options)
        file.seek(0)
        return file.read()


def names_of(rng, n): return rng.sample(WORDS, n)

def colors_of(rng, n, first=None):
    colors = [] if first is None else [first]
    while len(colors) < n:
        color = tuple(rng.choice((0, 32, 64, 96, 128, 160, 192, 224, 255, rng.randrange(256))) for _ in range(3))
        if color not in colors and color != (0, 0, 0) and len(set(color)) > 1: colors.append(color)
    return colors

def places(rng, n): # which class stands in each pixel, all of them somewhere
    grid = np.array([rng.randrange(n) for _ in range(24 * 30)]).reshape(24, 30)
    grid.ravel()[:n] = range(n)
    return grid

def with_palette(numbers, table):
    picture = Image.fromarray(numbers.astype(np.uint8))
    picture.putpalette([int(v) for color in table for v in color])
    return picture

def as_ids(rng, ids, colors=None): # ids stored in one of the ways that keep them
    ids = ids.astype(np.uint8)
    way = rng.randrange(7 if ids.max() < 250 else 6)
    if way == 0: return stored(Image.fromarray(ids))
    if way == 1: return stored(Image.fromarray(ids), "TIFF", compression=rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    if way == 2: return stored(Image.fromarray(ids), "BMP")
    if way == 3: return stored(Image.fromarray(ids.astype(np.uint16)))
    if way == 4: return stored(with_palette(ids, [voc(i) for i in range(256)]))
    if way == 5: return rng.choice([ids, ids.astype(np.int64), Image.fromarray(ids)])
    return stored(with_palette(ids, [(i, i, i) for i in range(256)]))

def as_paint(rng, grid, colors): # painted, or with a palette that a tool has sorted
    if rng.random() < .5: return stored(Image.fromarray(np.array(colors, np.uint8)[grid]), rng.choice(["PNG", "BMP", "TIFF"]))
    order = rng.sample(range(len(colors)), len(colors))
    numbers = np.argsort(order)[grid]
    return stored(with_palette(numbers, [colors[i] for i in order]), rng.choice(["PNG", "BMP"]))

def dressed(rng, text): # as editors leave it
    if rng.random() < .2: text = text.replace("\n", "\r\n")
    if rng.random() < .2: text += "\n\n"
    return ("\ufeff" if rng.random() < .2 else "") + text

def truth_of(names, grid): return np.array(names, object)[grid]


# --- what must be read -------------------------------------------------------------------------------------------------

def plain(rng):
    names = names_of(rng, rng.randint(3, 12))
    grid = places(rng, len(names))
    text = "# classes of our streets\n" * (rng.random() < .2) + "\n".join(names)
    ids = grid.copy()
    truth = truth_of(names, grid)
    if rng.random() < .5: ids[0], truth[0] = 255, ""
    return Case(dressed(rng, text), as_ids(rng, ids), truth, "plain list")

def own_form(rng):
    names = names_of(rng, rng.randint(2, 10))
    ids = sorted(rng.sample(range(255), len(names)))
    lines, at = [], 0
    for i, name in zip(ids, names):
        lines.append(f"{i}: {name}" if i != at or rng.random() < .5 or name[0].isdigit() else name)
        at = i + 1
    void = rng.choice([i for i in range(255) if i not in ids])
    lines.append(f"{void}: -")
    grid = places(rng, len(names) + 1)
    return Case(dressed(rng, "\n".join(lines)), as_ids(rng, np.array([*ids, void])[grid]), truth_of([*names, ""], grid), "own form")

def own_colors(rng):
    names = names_of(rng, rng.randint(2, 10))
    colors = colors_of(rng, len(names) + 1)
    lines = [f"{name} #{bytes(color).hex()}" for name, color in zip(names, colors)] + [f"- #{bytes(colors[-1]).hex()}"]
    grid = places(rng, len(names) + 1)
    return Case(dressed(rng, "\n".join(lines)), as_paint(rng, grid, colors), truth_of([*names, ""], grid), "own form, painted")

def numbered(rng):
    names = names_of(rng, rng.randint(2, 10))
    names = [name if not name[0].isdigit() else f"x{name}" for name in names]
    ids = rng.sample(range(60), len(names))
    grid = places(rng, len(names))
    text = "\n".join(f"{i}{rng.choice([' ', '  ', chr(9)])}{name}" for i, name in zip(ids, names))
    return Case(dressed(rng, text), as_ids(rng, np.array(ids)[grid]), truth_of(names, grid), "0 name")

def labelme(rng):
    names = ["_background_", *names_of(rng, rng.randint(1, 8))]
    grid = places(rng, len(names))
    ids, truth = grid.copy(), truth_of(names, grid)
    ids[0], truth[0] = 255, ""
    if rng.random() < .4: # the .npy of its export
        ids[0] = -1
        return Case("\n".join(["__ignore__", *names]), ids, truth, "labelme, npy")
    text = "\n".join(["__ignore__"] * (rng.random() < .6) + names)
    return Case(dressed(rng, text), stored(with_palette(ids, [voc(i) for i in range(256)])), truth, "labelme, VOC")

def cvat(rng):
    names = sorted([*names_of(rng, rng.randint(2, 8)), "background"])
    colors = colors_of(rng, len(names)) if rng.random() < .6 else rng.sample([voc(i) for i in range(1, 22)], len(names))
    colors[names.index("background")] = (0, 0, 0)
    grid = places(rng, len(names))
    text = "# label:color_rgb:parts:actions\n" * (rng.random() < .8) + "\n".join(f"{n}:{r},{g},{b}::" for n, (r, g, b) in zip(names, colors))
    label = as_paint(rng, grid, colors)
    if rng.random() < .3 and all(color in map(voc, range(22)) for color in colors): # numbers of VOC's colours, which are not those of the lines
        label = stored(with_palette(np.array([[voc(i) for i in range(22)].index(c) for c in colors])[grid], [voc(i) for i in range(256)]))
    return Case(dressed(rng, text), label, truth_of(names, grid), "CVAT")

def roboflow(rng):
    names = ["background", *names_of(rng, rng.randint(1, 8))]
    grid = places(rng, len(names))
    text = "Pixel Value, Class\n" + "\n".join(f"{i}, {name}" for i, name in enumerate(names))
    return Case(dressed(rng, text), as_ids(rng, grid), truth_of(names, grid), "Roboflow")

def camvid(rng):
    names = [*names_of(rng, rng.randint(3, 12)), "Void"]
    rng.shuffle(names)
    colors = colors_of(rng, len(names))
    colors[names.index("Void")] = (0, 0, 0)
    kept = [rng.random() < .8 for _ in names] if rng.random() < .3 else None
    if kept and sum(k for k, n in zip(kept, names) if n != "Void") < 2: kept = None
    rows = ["name,r,g,b" + ",class_11" * bool(kept)] + [f"{n},{r},{g},{b}" + (f",{int(kept[i])}" if kept else "") for i, (n, (r, g, b)) in enumerate(zip(names, colors))]
    grid = places(rng, len(names))
    shown = ["" if n == "Void" or kept and not kept[i] else n for i, n in enumerate(names)]
    return Case(dressed(rng, "\n".join(rows)), as_paint(rng, grid, colors), truth_of(shown, grid), "class_dict.csv")

def hugging_face(rng):
    names = names_of(rng, rng.randint(2, 14))
    ids = rng.sample(range(150), len(names)) if rng.random() < .5 else list(range(len(names)))
    table = dict(sorted((str(i), name) for i, name in zip(ids, names))) # as text: "10" before "2"
    grid = places(rng, len(names))
    content = dict(model_type="segformer", id2label=table) if rng.random() < .4 else table
    return Case(json.dumps(content, indent=rng.choice([None, 2]), ensure_ascii=rng.random() < .5), as_ids(rng, np.array(ids)[grid]), truth_of(names, grid), "id2label")

def binary(rng):
    names = ["background", "object"]
    grid = places(rng, 2)
    way = rng.randrange(4)
    if way == 0: return Case("background\n255: object\n", stored(Image.fromarray((grid * 255).astype(np.uint8))), truth_of(names, grid), "0/255")
    if way == 1: return Case("background\nobject\n", stored(Image.fromarray((grid * 255).astype(np.uint8))), truth_of(names, grid), "0/255, plain list")
    if way == 2: return Case("background\nobject\n", as_ids(rng, grid), truth_of(names, grid), "0/1")
    return Case(rng.choice(["background\nobject\n", "background\n255: object\n"]), stored(Image.fromarray(grid.astype(bool)), rng.choice(["PNG", "TIFF", "BMP"])), truth_of(names, grid), "1 bit")

READ = [plain, own_form, own_colors, numbered, labelme, cvat, roboflow, camvid, hugging_face, binary]


# --- what must be refused ----------------------------------------------------------------------------------------------

def wrong_list(rng):
    names = [name for name in names_of(rng, rng.randint(3, 8)) if not name[-1].isdigit() and not name[0].isdigit()]
    names += ["hedge", "kerb", "ramp"][:max(0, 3 - len(names))]
    lines = list(enumerate(names))
    at = rng.randrange(1, len(names))
    texts = {
        "table": "id,name\n" + "\n".join(f"{i},{n}" for i, n in lines), "table with semicolons": "\n".join(f"{i};{n}" for i, n in lines),
        "table with tabs": "\n".join(f"{n}\t{i}" for i, n in lines), "header": rng.choice(["name", "class", "Label", "category", "id"]) + "\n" + "\n".join(names),
        "comment in the middle": "\n".join([*names[:at], "# more", *names[at:]]), "half numbered": "\n".join(f"{i} {n}" if i % 2 else n for i, n in lines),
        "name and id": "\n".join(f"{n} {i + 3}" for i, n in lines), "name and id in most lines": "\n".join(n if i == at else f"{n} {i + 3}" for i, n in lines),
        "name: id": "\n".join(f"{n}: {i}" for i, n in lines), "name = id": "\n".join(f"{n} = {i}" for i, n in lines),
        "colours of SegNet": "\n".join("{} {} {}\t{}".format(*c, n) for c, n in zip(colors_of(rng, len(names)), names)),
        "YAML list": "\n".join(f"- {n}" for n in names), "YAML": "names:\n" + "\n".join(f"  {i}: {n}" for i, n in lines), "Python": f"CLASSES = {names!r}",
        "JSON list": json.dumps(names), "label2id": json.dumps({n: i for i, n in lines}), "quoted": "\n".join(f'"{n}",' for n in names),
        "twice": "\n".join([*names, names[0]]), "id twice": "\n".join(f"{i}: {n}" for i, n in [*lines, (0, "other")]), "above 255": "\n".join([*names, "300: other"]),
        "-1": "-1: void\n" + "\n".join(names), "labelme's mark inside": "\n".join([*names[:at], "__ignore__", *names[at:]]),
        "labelme without background": "\n".join(["__ignore__", *names]), "labelme, an empty line": "\n".join(["__ignore__", "_background_", "", *names]),
        "CVAT, a line of another kind": "# label:color_rgb:parts:actions\n" + "\n".join(f"{n}:1,2,{i}::" if i else n for i, n in lines),
        "CVAT, one colour twice": "\n".join(f"{n}:1,2,3::" for n in names), "CVAT, colour above 255": "\n".join(f"{n}:1,2,{i * 90}::" for i, n in [*lines, (5, "z")]),
        "class_dict, another header": "label,red,green,blue\n" + "\n".join(f"{n},1,2,{i}" for i, n in lines), "class_dict, a short row": "name,r,g,b\n" + "\n".join(f"{n},1,2,{i}" if i else f"{n},1,2" for i, n in lines),
        "Roboflow, no value": "Pixel Value, Class\n" + "\n".join(f"{i if i else 'x'}, {n}" for i, n in lines),
        "JSON, a key twice": '{"0": "a", "0": "b", "1": "c"}', "JSON, no name": '{"0": "a", "1": 5}', "JSON, torn": json.dumps(dict(lines))[:-3], "JSON, nested": "[" * 5000 + "{" * 5000,
        "one class": names[0], "empty": "\n\n", "another encoding": "Straße\nsky\n".encode("latin-1"), "binary": bytes(range(256)), "long": "\n".join(f"c{i}" for i in range(2000))}
    kind = rng.choice(list(texts))
    return Case(texts[kind], np.zeros((2, 2), np.uint8), None, f"list: {kind}")

def wrong_label(rng):
    names = ["hedge", "kerb", "ramp", "sky"]
    colors = [(200, 10, 10), (10, 200, 10), (10, 10, 200), (90, 140, 220)]
    painted = "\n".join(f"{n} #{bytes(c).hex()}" for n, c in zip(names, colors))
    grid = places(rng, 4)
    rgb = np.array(colors, np.uint8)[grid]
    soft = rgb.copy()
    soft[rng.randrange(24), rng.randrange(30)] = (105, 105, 10)
    grey = Image.fromarray(grid.astype(np.uint8))
    cases = {
        "JPEG": ("\n".join(names), stored(grey, "JPEG")), "lossless WebP": ("\n".join(names), stored(grey.convert("RGB"), "WEBP", lossless=True)), "PPM": ("\n".join(names), stored(grey, "PPM")),
        "TIFF with JPEG": ("\n".join(names), stored(grey, "TIFF", compression="jpeg")), "2 bits": ("\n".join(names), stored(grey, bits=2)), "4 bits": ("\n".join(names), stored(grey, bits=4)),
        "painted, no colours": ("\n".join(names), stored(Image.fromarray(rgb))), "painted, a soft edge": (painted, stored(Image.fromarray(soft))),
        "unknown palette": ("\n".join(names), stored(with_palette(grid, colors_of(rng, 8)))), "floats": ("\n".join(names), stored(Image.fromarray(grid.astype(np.float32)), "TIFF")),
        "an id too many": ("\n".join(names[:3]), stored(grey)), "16 bits of instances": ("\n".join(names), stored(Image.fromarray((grid * 1000 + 1).astype(np.uint16)))),
        "transparent": (painted, stored(Image.fromarray(np.dstack([rgb, np.full(grid.shape, 128, np.uint8)])))), "CMYK": (painted, stored(Image.fromarray(rgb).convert("CMYK"), "TIFF")),
        "grey and alpha": ("\n".join(names), stored(grey.convert("LA"))), "torn": ("\n".join(names), stored(grey)[:60]), "floats in an array": ("\n".join(names), grid / 4)}
    kind = rng.choice(list(cases))
    return Case(*cases[kind], None, f"label: {kind}")

REFUSED = [wrong_list, wrong_label]


def case_of(seed: int, number: int) -> Case:
    rng = random.Random(f"{seed} {number}")
    return rng.choice(READ if rng.random() < .7 else REFUSED)(rng)

def judged(case: Case, folder: Path) -> str: # what is wrong, empty if nothing is
    from causal_tune.data.labels import own_space
    from causal_tune.data.masks import coding_of, read_class_ids, read_label, settle_binary
    (folder / "classes.txt").write_bytes(case.text if isinstance(case.text, bytes) else case.text.encode())
    label = case.label
    if isinstance(label, bytes):
        label = folder / "label.png"
        label.write_bytes(case.label)
    try:
        space = own_space(folder / "classes.txt")
        space = settle_binary(space, [lambda: read_label(label, coding_of(space))])
        got = read_class_ids(label, coding_of(space))
    except (ValueError, OSError) as err:
        if case.truth is not None: return f"refused: {err}"
        names_it = "classes.txt" in str(err) or "label" in str(err)
        return "" if names_it and "\n" not in str(err) else f"says neither file nor label: {err}"
    if case.truth is None: return f"read as {space.classes}"
    found = np.array([*space.classes, ""], object)[np.where(got < len(space), got, len(space))]
    if (found != case.truth).any(): return f"{(found != case.truth).mean():.0%} of pixels are another class"
    back = read_class_ids(space.to_file_ids(got) if (got < 255).all() or 255 not in space.file_ids else got * 0, coding_of(space, encoding="index"))
    return "" if (back == got).all() or 255 in space.file_ids else "ids that are written are not those that were read"


def run(n: int, seed: int = 0) -> tuple[Counter, list]:
    "Judges n cases; returns how many of each kind there were, and what was wrong with which."
    kinds, wrong = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(n):
            case = case_of(seed, number)
            kinds[case.kind] += 1
            if said := judged(case, Path(folder)): wrong.append((number, case.kind, said))
    return kinds, wrong


def main(words=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=10_000, help="cases (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    kinds, wrong = run(args.n, args.seed)
    for number, kind, said in wrong[:20]: print(f"not held: {kind}, --seed {args.seed}, number {number}: {said[:200]}")
    lost = Counter(kind for _, kind, _ in wrong)
    for kind, many in sorted(kinds.items()): print(f"{kind:<40}{many:>7} tried{many - lost[kind]:>7} held")
    print(f"{args.n} tried, {args.n - len(wrong)} held")
    return int(bool(wrong))


if __name__ == "__main__": sys.exit(main())
