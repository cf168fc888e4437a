"""Weight files: nothing in them is run, every format gives the same model, published checkpoints answer as they did."""
import io, json, os, pickle, re, sys
from pathlib import Path
import pytest
import torch
import causal_tune as ct
from causal_tune import checkpoints as C
from causal_tune.backbones import create_backbone, create_model, load_weights
from safetensors.torch import save_file

FIXTURES = Path(__file__).parent / "fixtures"
GOLDEN = Path(os.environ.get("CAUSAL_TUNE_DATA", "data")) / "golden"
apart = lambda a, b: float((a - b).abs().max())
recorded = pytest.mark.skipif(not (GOLDEN / "segmentor_rein.pt").exists(), reason="the whole recordings are not here")


def golden(name): return torch.load(GOLDEN / name, weights_only=True)


class Runs:  # whoever unpickles it runs the call
    def __init__(self, *call): self.call = call
    def __reduce__(self): return self.call[0], self.call[1:]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_in_a_file_is_run_or_imported(tmp_path, monkeypatch, zipped, protocol):
    trace = tmp_path / "trace"
    (tmp_path / "trap.py").write_text(f"open({str(trace)!r}, 'w')\n"
                                      "class Config(dict): pass\nclass Buffer(list): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("trap", None)
    import trap
    trace.unlink()
    with_state = trap.Config(lr=1e-4, hooks=[Runs(os.system, f"echo > {trace}")])
    with_state.note = Runs(eval, f"open({str(trace)!r}, 'w')")
    state = {"w": torch.arange(3.), "p": torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))}
    content = dict(state_dict=state, meta=dict(cfg=with_state, epoch=3, seen={"a", "b"}), log=trap.Buffer([1, 2]),
                   optimizer=dict(state={0: torch.ones(1)}), more=[Runs(exec, "raise SystemExit"), trap.Config])
    torch.save(content, tmp_path / "a.pth", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    del sys.modules["trap"]
    found = C.read_file(tmp_path / "a.pth")
    assert not trace.exists() and "trap" not in sys.modules
    assert found["state_dict"]["w"].tolist() == [0, 1, 2] and found["state_dict"]["p"].dtype == torch.bfloat16
    assert found["meta"]["epoch"] == 3 and found["meta"]["seen"] == {"a", "b"}
    assert list(C.read_weights(found)) == ["w", "p"]
    assert isinstance(found["meta"]["cfg"], C.Placeholder) and isinstance(found["log"], C.Placeholder)
    with pytest.raises(pickle.UnpicklingError): torch.load(tmp_path / "a.pth", weights_only=True)
    with pytest.raises(SystemExit): torch.load(tmp_path / "a.pth", weights_only=False)
    assert trace.exists()  # the trap is a real one


def test_no_name_leads_out_of_the_safe_ones():
    for name in ("os.system", "builtins.eval", "__builtin__.getattr", "torch.load", "torch.nn", "numpy.dtype",
                 "torch._utils._rebuild_tensor_v2.__globals__", "collections.OrderedDict.__init__"):
        for cut in (m.start() for m in re.finditer(r"\.", name)):
            assert C.Unpickler(io.BytesIO(b"")).find_class(name[:cut], name[cut + 1:]) is C.Placeholder, name


def test_a_file_cannot_write_on_what_it_names():
    sets_attribute = b"\x80\x02ctorch._utils\n_rebuild_tensor\n(N}X\x01\x00\x00\x00aK\x01stb."
    pickle.loads(sets_attribute)
    assert torch._utils._rebuild_tensor.a == 1
    del torch._utils._rebuild_tensor.a
    with pytest.raises(TypeError): C.Unpickler(io.BytesIO(sets_attribute)).load()
    assert not hasattr(torch._utils._rebuild_tensor, "a")


@pytest.mark.parametrize("spoil", [lambda b: b"", lambda b: b[:200], lambda b: b[:-40], lambda b: b"\x80\x02}q\x00."])
def test_a_file_that_is_cut_off_or_empty_is_said(tmp_path, spoil):
    torch.save({"a": torch.ones(100)}, tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes(spoil((tmp_path / "a.pth").read_bytes()))
    with pytest.raises(ValueError, match="a.pth"): C.read_weights(tmp_path / "a.pth")


def facebook(registers=0, gated=False, c=48, depth=2):
    "A small DINOv2 as its makers name and nest it."
    torch.manual_seed(0)
    hidden, (up, down) = 2 * c if gated else 4 * c, ("w12", "w3") if gated else ("fc1", "fc2")
    shapes = {"cls_token": (1, 1, c), "pos_embed": (1, 1370, c), "mask_token": (1, c),
              "norm.weight": (c,), "norm.bias": (c,),
              "patch_embed.proj.weight": (c, 3, 14, 14), "patch_embed.proj.bias": (c,)}
    if registers: shapes["register_tokens"] = (1, registers, c)
    maps = {"attn.qkv": (3 * c, c), "attn.proj": (c, c), "norm1": (c,), "norm2": (c,),
            f"mlp.{up}": (hidden * (1 + gated), c), f"mlp.{down}": (c, hidden)}
    for i in range(depth):
        for name, shape in maps.items():
            shapes |= {f"blocks.{i}.{name}.weight": shape, f"blocks.{i}.{name}.bias": shape[:1]}
        shapes |= {f"blocks.{i}.ls{j}.gamma": (c,) for j in (1, 2)}
    return {k: torch.randn(v) * .2 for k, v in shapes.items()}


@pytest.mark.parametrize("preset, registers, gated",
                         [("dinov2_s", 0, False), ("dinov2_s_reg", 4, False), ("dinov2_g", 0, True)])
@pytest.mark.parametrize("size", [(64, 64), (64, 128), (256, 1024)])
def test_all_formats_give_the_same_model(tmp_path, preset, registers, gated, size):
    state = facebook(registers, gated)
    torch.save(state, tmp_path / "facebook.pth")
    torch.save({"model": state}, tmp_path / "nested.pth")
    torch.save({"teacher": {f"backbone.{k}": v for k, v in state.items()}}, tmp_path / "teacher.pth")
    save_file(C.timm_names(state), tmp_path / "timm.safetensors")
    converted = {"pinv": ["a.pth", "a.safetensors", "b.pth"], "bicubic": ["c.pth", "d.safetensors"]}
    for how, names in converted.items():
        for source, name in zip(["facebook.pth", "nested.pth", "timm.safetensors"][-len(names):], names):
            C.convert_backbone(tmp_path / source, tmp_path / name, *size, how)
    def answer(name, load):
        options = dict(embed_dim=48, depth=2, num_heads=3) | (dict(mlp_ratio=4.) if gated else {})
        model = create_model(preset, img_size=size, pretrained=False, **options).eval()
        load(model, tmp_path / name)
        image = torch.linspace(-1, 1, 3 * size[0] * size[1]).view(1, 3, *size)
        with torch.no_grad(): return model.forward_features(image)
    want = answer("facebook.pth", load_weights)
    for name in ["nested.pth", "teacher.pth", "timm.safetensors", *converted["pinv"]]:
        assert torch.equal(answer(name, load_weights), want), name
    bicubic = answer("c.pth", load_weights)
    assert torch.equal(answer("d.safetensors", load_weights), bicubic) and apart(bicubic, want) > .01

    def fit(model, path): # the way of load_published
        state = C.timm_names(C.backbone_weights(path))
        model.load_state_dict(C.fit_backbone(state, model.patch_embed.grid_size, (16, 16)))
    for name in ["facebook.pth", "teacher.pth", "timm.safetensors", *converted["bicubic"]]:
        assert torch.equal(answer(name, fit), bicubic), name


def test_a_table_for_an_oblong_of_1024_patches_is_not_taken_for_a_square():
    table = {"pos_embed": torch.randn(1, 1 + 16 * 64, 8)}
    assert torch.equal(C.fit_backbone(table, (16, 64), (16, 16))["pos_embed"], table["pos_embed"])


def test_names_and_shapes_at_vit_l():
    "Every published name and shape is one of ours; only the mask token is not, which the forward pass never uses."
    # from the recorded lists of parameters: name, with * for the number of a block or layer -> how many, shape
    names = json.loads((FIXTURES / "vitl_names.json").read_text())
    both = {"rein": names["rein"], "causal_tune:variant=released": names["rein"] | names["causal"]}
    for adapter, published in both.items():
        with torch.device("meta"):
            vit = create_model("dinov2_l", pretrained=False)
            segmentor = ct.create_segmentor(create_backbone(vit, adapter), head="mask2former", num_classes=19)
            state = {p + k: v for p, m in C._modules(segmentor).items() for k, v in m.state_dict().items()}
            segmentor = ct.segmentor_from_published(state)
        ours = {k: list(v.shape) for k, v in state.items()}
        counted = {}
        for name, shape in ours.items():
            stands = re.search(r"(blocks|encoder\.layers|transformer_decoder\.layers)\.\d", name)
            name = re.sub(r"(blocks|layers)\.\d+\.(?!\d)", r"\1.*.", name, count=1) if stands else name
            counted.setdefault(name, [0, shape])[0] += 1
        assert counted == {k: v for k, v in published.items() if k != "backbone.mask_token"}
        assert segmentor.backbone.out_layers == (7, 11, 15, 23)
        assert ours == {p + k: list(v.shape) for p, m in C._modules(segmentor).items()
                        for k, v in m.state_dict().items()}


@recorded
def test_recorded_conversions():
    case = golden("misc.pt")["convert"]
    for source, target, side in [(case["input"], case["convert_dinov2_large_512x512"], 32),
                                 (case["input"], case["convert_dinov2_large_1024x1024"], 64),
                                 (case["eva"]["inp"], case["eva"]["out"], 32)]:
        patch, new = (c.get("patch_w", c.get(C.PATCH)) for c in (source, target))
        assert apart(C.resample_positions(source["pos_embed"], (side, side)), target["pos_embed"]) < 1e-6
        assert apart(C.resample_patches(patch, (16, 16)), new) < 1e-6


@recorded
@pytest.mark.parametrize("kind", ["rein", "causal"])
def test_recorded_adapters_are_recognised(kind):
    for name, case in golden(f"pieces_{kind}.pt")["reins"].items():
        k, (adapter, sizes) = case["kwargs"], C.published_adapter(case["state_dict"])
        assert sizes == dict(num_tokens=k["token_length"], rank=k.get("lora_dim"), query_dim=k["query_dims"],
                             init="zero" if k.get("zero_mlp_delta_f") else "scale"), name
        assert adapter == dict(rein="rein", causal="causal_tune:variant=released")[kind]
        ct.create_adapter(adapter, k["num_layers"], k["embed_dims"], **sizes).load_state_dict(case["state_dict"])


@recorded
def test_recorded_segmentor(tmp_path):
    case = golden("segmentor_rein.pt")
    segmentor = ct.segmentor_from_published(case["params"], num_heads=3, img_size=128, decoder_heads=4)
    with torch.no_grad():
        scores, slid = segmentor(case["input"]), segmentor.slide(case["slide"]["input"], 128, 85)
        features, queries = segmentor.features(case["input"])
        answers = segmentor.head.answers(features, queries)
    assert max(map(apart, features, case["features_raw"])) < 1e-4 and apart(queries, case["querys"]) < 1e-4
    for (classes, masks), c, m in zip(answers, case["cls_pred_list"], case["mask_pred_list"]):
        assert apart(classes[:len(c)], c) < 1e-4 and apart(masks[:len(m)], m) < 1e-3
    assert apart(scores[0], case["seg_logits_img0"]) < 1e-4
    assert apart(scores[..., ::2, ::2], case["seg_logits_stride2"]) < 1e-4
    assert torch.equal(scores.argmax(1), case["pred_label"]) and torch.equal(slid.argmax(1), case["slide"]["label"])
    assert apart(slid[..., ::4, ::4], case["slide"]["logits_stride4"]) < 1e-4

    kept = set(case["checkpoint_keys"])  # as published: adapter and head in one file, the backbone in another
    checkpoint = {k: v for k, v in case["params"].items() if k in kept}
    torch.save(dict(state_dict=checkpoint, meta=Runs(print, "run")), tmp_path / "c.pth")
    torch.save(C.split_published(case["params"])["backbone"], tmp_path / "b.pth")
    again = ct.segmentor_from_published(tmp_path / "c.pth", 3, 128, 4, backbone=tmp_path / "b.pth")
    with torch.no_grad(): assert torch.equal(again(case["input"]), scores)
    for load in (ct.segmentor_from_published, lambda path: ct.load_published(again, path)):
        with pytest.raises(ValueError, match="holds no backbone"): load(tmp_path / "c.pth")
    with pytest.raises(ValueError, match="not for a ConvNeXt"):
        small = create_model("convnext_t", pretrained=False, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
        ct.load_published(C.Segmentor(create_backbone(small), again.head, 19), case["params"])
    with pytest.raises(ValueError, match="1025 positions, but this checkpoint holds 65"):
        ct.segmentor_from_published(case["params"], 3, 512, 4)


@recorded
def test_a_causal_checkpoint_is_recognised_whole():
    "The recorded segmentor with the parameters that the released Causal-Tune has beside Rein's."
    case = golden("segmentor_rein.pt")
    state, reins = dict(case["params"]), "backbone.reins."
    state[reins + "learnable_tokens2"] = torch.randn(4, 20, 96)
    for name in ("mlp_token2feat", "mlp_delta_f"):
        for k in ("weight", "bias"): state[f"{reins}{name}2.{k}"] = torch.randn_like(state[f"{reins}{name}.{k}"])
    expected = json.loads((GOLDEN / "full_vitl_keys_causal.json").read_text())["params"]
    assert {k for k in state if k.startswith(reins)} == {k for k in expected if k.startswith(reins)}
    segmentor = ct.segmentor_from_published(state, num_heads=3, img_size=128, decoder_heads=4)
    assert type(segmentor.adapter).__name__ == "ReleasedCausalTune"
    with torch.no_grad(): scores = segmentor(case["input"])
    assert scores.shape == (2, 19, 128, 128) and scores.isfinite().all()
    assert apart(scores[0], case["seg_logits_img0"]) > .01  # it is another method
    dead = re.compile(r"backbone\.reins\.(learnable_tokens2|mlp_token2feat2|mlp_delta_f2)\b")
    state |= {k: torch.zeros_like(v) for k, v in state.items() if dead.match(k)}
    with torch.no_grad():  # what is dead takes no part
        assert torch.equal(ct.segmentor_from_published(state, 3, 128, 4)(case["input"]), scores)


@recorded
def test_recorded_transformer_at_five_sizes():
    case = golden("pieces_shared.pt")["dino"]
    state = C.timm_names(case["state_dict"])
    vit = C.published_vit(state, num_heads=3, img_size=64)
    vit.load_state_dict(state)
    backbone = create_backbone(vit)
    for size, c in case["cases"].items(): assert max(map(apart, backbone(c["x"]), c["raw"])) < 1e-4, size
