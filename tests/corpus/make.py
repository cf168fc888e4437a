"""The whole inputs that the fuzzer begins with, and hostile ones. Small, and made when they are needed: none is stored in the repository."""
import io, pickle, struct
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as safetensors

SIDE = 12


def picture(mode="RGB", kind="PNG", size=(SIDE, SIDE - 3), **options) -> bytes:
    "A gradient in one of PIL's modes, as a file."
    w, h = size
    ramp = np.add.outer(np.arange(h) * 7, np.arange(w) * 11)
    if mode == "I;16": image = Image.fromarray((ramp * 300).astype(np.uint16))
    elif mode == "I": image = Image.fromarray((ramp * 70_000).astype(np.int32))
    elif mode == "F": image = Image.fromarray((ramp / ramp.max()).astype(np.float32))
    else: image = Image.fromarray((ramp % 256).astype(np.uint8)).convert("RGB").convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(orientation: int) -> bytes:
    "A JPEG whose EXIF says that it is turned."
    exif = Image.Exif()
    exif[0x0112] = orientation
    return picture("RGB", "JPEG", exif=exif)


def images() -> list[bytes]:
    png = [picture(mode) for mode in ("RGB", "L", "RGBA", "LA", "P", "1", "I;16")]
    jpeg = [picture(mode, "JPEG") for mode in ("RGB", "L", "CMYK")] + [turned(6), picture("RGB", "JPEG", progressive=True)]
    tiff = [picture(mode, "TIFF") for mode in ("RGB", "L", "I;16", "I", "F", "P", "1")]
    tiff += [picture("RGB", "TIFF", compression=name) for name in ("tiff_lzw", "tiff_deflate", "jpeg")]
    others = [picture("RGB", kind) for kind in ("BMP", "WEBP", "PPM", "GIF", "TGA", "ICO", "PCX")] + [picture("RGBA", "WEBP")]
    film = picture("P", "GIF", save_all=True, append_images=[Image.new("P", (SIDE, SIDE - 3), i) for i in range(3)])
    return [*png, *jpeg, *tiff, *others, film, picture("RGB", size=(1, 1)), picture("RGB", size=(600, 1)),
            picture("P", transparency=0), b"P5 4 3 255\n" + bytes(12), b"P3 2 1 255\n1 2 3 4 5 6\n"]


def labels() -> list[bytes]:
    def label(ids, mode="L", kind="PNG", **options):
        image = Image.fromarray(np.array(ids))
        if mode == "P":
            image = image.convert("P")
            image.putpalette([128, 64, 128, 244, 35, 232, 70, 70, 70])
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()
    ids = (np.arange(108) % 19).astype(np.uint8).reshape(9, 12)
    grey = [label(ids), label(ids, kind="TIFF"), label(ids, kind="GIF"), label(np.full((9, 12), 255, np.uint8)), label(ids % 2 > 0)]
    wide = [label(ids.astype(np.uint16)), label(ids.astype(np.int32), kind="TIFF")]
    return [*grey, *wide, label(ids, "P"), label(ids % 3, "P"), picture("RGB"), picture("RGBA"), picture("LA")]


POLYGONS = dict(imgWidth=20, imgHeight=10, objects=[
    dict(label="road", polygon=[[0, 0], [19, 0], [19, 9], [0, 9]]),
    dict(label="car", polygon=[[2, 2], [8.5, 2], [8, 7]], deleted=0),
    dict(label="cargroup", polygon=[[12, 2], [18, 2], [18, 7]]),
    dict(label="license plate", polygon=[[3, 3], [4, 3], [4, 4]])])


# --- weights -----------------------------------------------------------------------------------------------------------

class Runs:
    "Unpickling it runs the call."
    def __init__(self, *call): self.call = call
    def __reduce__(self): return self.call[0], self.call[1:]


def saved(content, zipped=True, **options) -> bytes:
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=zipped, **options)
    return out.getvalue()


CANARY = "canary"  # a file that nothing makes unless what a hostile file says is run

def hostile() -> list[bytes]:
    "Pickles that would create the canary file, and others that request huge resources."
    import os
    makes = f"open({CANARY!r}, 'w')"
    calls = [Runs(os.system, f"echo > {CANARY}"), Runs(eval, makes), Runs(exec, makes), Runs(open, CANARY, "w"), Runs(os.mkdir, CANARY),
             Runs(os._exit, 3), Runs(os.abort), Runs(getattr, "abc", "upper"), Runs(torch.load, CANARY), Runs(torch.zeros, 10 ** 10),
             Runs(bytearray, 10 ** 12)]
    files = []
    for call in calls:
        files += [pickle.dumps(call, p) for p in (0, 2, 4)]
        ours = dict(recipe=call, adapter={}, head={}, classes=[])
        for wrapped in (call, ours, dict(state_dict=dict(w=torch.ones(2), x=call))):
            for zipped in (True, False):
                try: files.append(saved(wrapped, zipped))
                except Exception: pass # what torch itself does not write
    name = CANARY.encode()
    by_hand = [b"cos\nsystem\n(S'echo > %b'\ntR." % name, b"(S'echo > %b'\nios\nsystem\n." % name,
               b"c__builtin__\neval\n(S'open(\"%b\", \"w\")'\ntR." % name, b"\x80\x02]" + b"]" * 500 + b"a" * 500 + b".",
               b"\x80\x04\x8e" + struct.pack("<Q", 2 ** 62) + b"x.", b"\x80\x02X\xff\xff\xff\x7fx.", b"\x80\x02}q\x00(K\x01K\x02u.",
               b"cposix\nfork\n)R.", b"\x80\x02ctorch._utils\n_rebuild_tensor\n(N}X\x01\x00\x00\x00aK\x01stb.",
               b"\x80\x02J\x0a\x8d\xf5\x2c.", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."]
    return files + by_hand


def old() -> list[bytes]:
    "Files of other programs and older versions."
    import argparse, collections
    state = collections.OrderedDict(w=torch.arange(4.).reshape(2, 2), b=torch.nn.Parameter(torch.ones(2)))
    state._metadata = dict(version=1)
    python2 = b"(dp0\nS'w'\np1\n(lp2\nF1.5\nas."
    contents = [state, dict(state_dict=state, meta=dict(epoch=1, cfg="text")), dict(model=state, args=argparse.Namespace(lr=.1)),
                dict(state_dict={"module.w": torch.ones(2)}), state["w"], [state], dict(a=np.ones(3)), {1: torch.ones(2)}]
    files = [saved(c, zipped) for c in contents for zipped in (True, False)]
    others = [saved(state, pickle_protocol=4), pickle.dumps(dict(a=1)), pickle.dumps(np.ones(3)), python2]
    return files + others + [safetensors({"w": torch.ones(2)})]


# --- the rest ----------------------------------------------------------------------------------------------------------

LOG = b"iteration,loss,lr,validation_miou,seconds\n" + b"".join(b"%d,1.5,0.001,,%d\n" % (i, i) for i in range(12))
TABLE = (b"# causal-tune bench-quality toyscapes; causal_tune 0.1.0\nadapter,domain,difference,sd_over_seeds,low,high,p,holm,reference\n"
         b"rein,clear,0.5,0.1,-0.2,1.2,.2,.2,none\nrein,fog:3,-1.5,0.1,-2.2,-.2,.003,.006,none\nset,clear,2.5,,,,,,rein\n")
_scores = dict(miou=.25, aacc=.5, macc=.5, iou={"road": .5, "car": .0}, version="0.1.0")
ROWS = [dict(adapter=a, seed=s, domain=d, data=f"toyscapes:domain={d}", **_scores)
        for a in ("none", "rein") for s in (1, 2) for d in ("clear", "fog")]


def counts() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, clear=np.ones((4, 3, 3), np.int64), fog=np.ones((4, 3, 3), np.int64))
    return out.getvalue()


def strange_arrays() -> list[bytes]:
    "Archives of arrays that are of another kind."
    files = []
    odd = np.array([1, "a", None], object), np.ones(3), np.ones((2, 3, 4)), np.full((4, 3, 3), np.nan), np.full((4, 3, 3), -1)
    for arrays in [{}, dict(fog=np.ones((4, 3, 3)))] + [dict(clear=array) for array in odd]:
        out = io.BytesIO()
        np.savez(out, **arrays)
        files.append(out.getvalue())
    return files


SPECS = ("dog:low=.2,high=.7", "dog", "gaussian:center=.5,width=.1", "piecewise:low=.1,high=.7", "ideal:low=0.2,high=0.7", "none",
         "butterworth:low=.2,order=3", "learnable:low=.2,high=.7,slope=.05", "rein:rank=4,init=zero", "causal_tune:band=dog,residual=replace",
         "causal_tune:variant=released,num_tokens=5", "lora:rank=2", "soma:first_layer=1", "full", "set:num_tokens=8", "fada:rank=none",
         "linear", "dpt:width=8", "mask2former:width=32,num_heads=4", "toyscapes:domain=fog,split=val,n=64",
         "toyscapes:domain=all,n=3,size=96x128,corruption=fog:3", "camvid:split=train,domain=day,sequence=0016E5",
         "acdc:split=val,condition=fog,size=540x960", "cityscapes_c:severity=3,domain=fog", "bdd100k:split=val", "gta:split=train,n=10",
         "spurious:p=1,low=.01", "amplitude:beta=.1,strength=.3,p=.5", "fog:3", "jpeg_compression", "x:corruption=fog:3")
FIELDS = ("96x128", "2e-4", "on", "off", "toyscapes:domain=fog camvid:split=val", "0.5 2", "none", "512 512", "dog:low=.2", "bf16", "42",
          "random")
