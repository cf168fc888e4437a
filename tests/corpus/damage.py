"""Damage inputs: bytes, texts and trees of plain values, driven by a `random.Random`, so that each case can be reproduced."""
import io, json, math, re, struct, zipfile, zlib
from random import Random

NUMBERS = (0, -1, 1, 2, 255, 256, 2 ** 31, 2 ** 63, -2 ** 63, 10 ** 8, 10 ** 400, .5, -.5, 1e308, 1e-320, math.nan, math.inf, -math.inf)
TEXTS = ("", " ", "x", "none", "nan", "1e999", "-1", "0016E5", "a\nb", "a\0b", "../../x", "<b>&", "%s", "{0}", "é", "x" * 20_000)
OTHERS = (None, True, False, [], {}, [[]], [None], {"": {}}, [1, "a", None])
TEXT_NUMBERS = (b"0", b"-1", b"NaN", b"Infinity", b"1e308", b"1e999", b"9223372036854775808", b"100000000", b".5", b"null")


def any_value(rng: Random):
    "An unexpected value."
    return copied(rng.choice(rng.choice((NUMBERS, TEXTS, OTHERS, (deep(rng),)))))


def deep(rng: Random):
    "Lists or dicts in each other, a few or hundreds."
    tree = rng.choice(NUMBERS)
    for _ in range(rng.choice((3, 60, 800))): tree = [tree] if rng.random() < .5 else {"a": tree}
    return tree


# --- trees -------------------------------------------------------------------------------------------------------------

def copied(tree):
    "New containers, the same leaves."
    if type(tree) is dict: return {k: copied(v) for k, v in tree.items()}
    if type(tree) in (list, tuple): return [copied(v) for v in tree]
    return tree


def places(tree) -> list:
    "Every (container, key) of a tree."
    found, todo = [], [tree]
    while todo:
        node = todo.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        found += [(node, key) for key in keys]
        todo += [node[key] for key in keys]
    return found


def damage_tree(rng: Random, tree, value=any_value):
    "A copy with one to three places changed, removed, renamed, doubled or nested."
    tree = copied(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        spots = places(tree)
        if not spots or rng.random() < .01: return value(rng)
        node, key = rng.choice(spots)
        tree = _changed(rng, tree, node, key, spots, value)
    return tree


def _changed(rng, tree, node, key, spots, value):
    how = rng.randrange(10)
    old = node[key]
    if how == 0: del node[key]
    elif how == 1 and isinstance(node, dict): node[damage_text(rng, str(key))] = node.pop(key)
    elif how == 1: node.append(old)
    elif how == 2: node[key] = [old]
    elif how == 3:
        other, place = rng.choice(spots)
        if _still_there(other, place): node[key] = copied(other[place])
    elif how < 6 and isinstance(old, str): node[key] = damage_text(rng, old)
    elif how < 6 and type(old) in (int, float): node[key] = rng.choice(NUMBERS)
    else: node[key] = value(rng)
    return tree


def _still_there(node, key): return key in node if isinstance(node, dict) else key < len(node)


# --- texts -------------------------------------------------------------------------------------------------------------

def damage_text(rng: Random, text: str) -> str:
    for _ in range(rng.choice((1, 1, 2, 4))):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        how = rng.randrange(9)
        if how == 0: text = text[:a] + text[b:]
        elif how == 1: text = text[:b] + text[a:]
        elif how == 2: text = text[:a] + rng.choice(":,=.;x-+[](){}'\"\\ \t\n\0é#@~") + text[a:]
        elif how == 3: text = text[:a] + rng.choice(TEXTS) + text[a:]
        elif how == 4: text = text[:a] + str(rng.choice(NUMBERS[:10] + NUMBERS[11:])) + text[b:]
        elif how == 5: text = text[:a]
        elif how == 6 and len(text) < 2000: text = text[:a] + text[a:b] * rng.choice((2, 30)) + text[b:]
        elif how == 7: text = text[:a] + chr(rng.randrange(1, 0x250)) + text[a + 1:]
        else: text = re.sub(r"\d+(\.\d+)?", lambda m: str(rng.choice(NUMBERS[:10] + NUMBERS[11:])) if rng.random() < .5 else m[0], text)
    return text[:50_000]


# --- bytes -------------------------------------------------------------------------------------------------------------

def damage_bytes(rng: Random, data: bytes, others=()) -> bytes:
    "Flipped bits, cut ends, chunks inserted, doubled, removed or taken from another file, numbers made extreme."
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        how, at = rng.randrange(10), rng.randrange(len(data) + 1)
        length = rng.choice((1, 2, 4, 8, 16, 64, 300))
        chunk = data[at:at + length]
        if how == 0 and at < len(data): data[at] ^= 1 << rng.randrange(8)
        elif how == 1: data[at:at + 1] = bytes([rng.choice((0, 1, 127, 128, 254, 255))])
        elif how == 2: del data[at:]
        elif how == 3: del data[at:at + length]
        elif how == 4: data[at:at] = chunk * rng.choice((1, 1, 50))
        elif how == 5: data[at:at] = rng.randbytes(length)
        elif how == 6: data[at:at + 8] = _number(rng)
        elif how == 7: data = bytearray(_other_number(rng, bytes(data)))
        elif how == 8 and others:
            other = rng.choice(others)
            data = data[:at] + other[rng.randrange(len(other) + 1):]
        else: data[at:at + length] = bytes(len(chunk))
    return bytes(data[:200_000])


def _number(rng): # as a file may hold it
    form = rng.choice(("<I", ">I", "<i", ">i", "<H", ">H", "<q", ">q", "<d", ">d", "<f", ">f"))
    if form[1] in "df": return struct.pack(form, rng.choice((0., -1., math.nan, math.inf)))
    bits = 8 * struct.calcsize(form)
    values = (0, 1, 2 ** (bits - 1) - 1) + ((2 ** bits - 1, 2 ** (bits - 1)) if form[1].isupper() else (-1,))
    return struct.pack(form, rng.choice(values))


def _other_number(rng, data): # one that is written in digits
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found: return data
    m = rng.choice(found)
    return data[:m.start()] + rng.choice(TEXT_NUMBERS) + data[m.end():]


# --- files, by what they are -------------------------------------------------------------------------------------------

def damage_file(rng: Random, data: bytes, others=()) -> bytes:
    "A file damaged inside its container, whose sums and lengths are made to fit again, or anywhere."
    inside = next((f for start, f in INSIDE.items() if data.startswith(start)), None)
    if data[8:9] == b"{": inside = _safetensors
    if inside and rng.random() < .5:
        try: return inside(rng, data)
        except (ValueError, LookupError, struct.error, zlib.error, zipfile.BadZipFile): pass # damaged before
    return damage_bytes(rng, data, others)


def _png(rng, data):
    chunks, at = [], 8
    while at + 12 <= len(data):
        length, = struct.unpack(">I", data[at:at + 4])
        chunks.append((data[at + 4:at + 8], data[at + 8:at + 8 + length]))
        at += 12 + length
    i = rng.randrange(len(chunks))
    name, inner = chunks[i]
    if name == b"IDAT" and rng.random() < .5: inner = zlib.compress(damage_bytes(rng, zlib.decompress(inner)))
    else: inner = damage_bytes(rng, inner)
    chunks[i] = name, inner
    if rng.random() < .2: chunks.insert(i, rng.choice(chunks))
    return data[:8] + b"".join(struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)


def _zip(rng, data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive: entries = {i.filename: archive.read(i) for i in archive.infolist()}
    name = rng.choice(list(entries))
    how = rng.randrange(5)
    if how == 0: del entries[name]
    elif how == 1: entries[damage_text(rng, name)[:200] or "x"] = entries.pop(name)
    else: entries[name] = damage_bytes(rng, entries[name], list(entries.values()))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for key, inner in entries.items(): archive.writestr(key, inner)
    return out.getvalue()


def _safetensors(rng, data):
    length, = struct.unpack("<Q", data[:8])
    header = damage_tree(rng, json.loads(data[8:8 + length]))
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length:]


def _json(rng, data):
    text = json.dumps(damage_tree(rng, json.loads(data)))
    if rng.random() > .03: return text.encode()
    at = rng.randrange(len(text))
    return (text[:at] + rng.choice(("[", '{"a":')) * 100_000 + text[at:]).encode()


INSIDE = {b"\x89PNG": _png, b"PK": _zip, b"{": _json, b"[": _json}
