"""Weight files: nothing in them is run, every format gives the same model, published checkpoints give their recorded outputs."""
import io, json, os, pickle, re, sys
from pathlib import Path
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import causal_tune as ct
from causal_tune.published import checkpoints as C
from causal_tune.models.backbones import create_backbone
from causal_tune.models.pretrained import check_position_grid, create_model, load_weights, read_backbone
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
    found = C.read_tensors(tmp_path / "a.pth", pickle_module=C._restricted)
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
            assert C.RestrictedUnpickler(io.BytesIO(b"")).find_class(name[:cut], name[cut + 1:]) is C.Placeholder, name


def test_a_file_cannot_write_on_what_it_names():
    sets_attribute = b"\x80\x02ctorch._utils\n_rebuild_tensor\n(N}X\x01\x00\x00\x00aK\x01stb."
    pickle.loads(sets_attribute)
    assert torch._utils._rebuild_tensor.a == 1
    del torch._utils._rebuild_tensor.a
    with pytest.raises(TypeError): C.RestrictedUnpickler(io.BytesIO(sets_attribute)).load()
    assert not hasattr(torch._utils._rebuild_tensor, "a")


def test_a_file_that_is_cut_off_or_empty_is_said(tmp_path):
    torch.save({"a": torch.ones(100)}, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    for spoiled in (b"", whole[:200], whole[:-40], b"\x80\x02}q\x00."):
        (tmp_path / "a.pth").write_bytes(spoiled)
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


@pytest.mark.parametrize("preset, registers, gated, size", [("dinov2_s", 0, False, (256, 1024)), ("dinov2_s_reg", 4, False, (64, 128)),
                                                            ("dinov2_g", 0, True, (64, 64))])
def test_all_formats_give_the_same_model(tmp_path, preset, registers, gated, size):
    state = facebook(registers, gated)
    torch.save(state, tmp_path / "facebook.pth")
    torch.save({"model": state}, tmp_path / "nested.pth")
    torch.save({"teacher": {f"backbone.{k}": v for k, v in state.items()}}, tmp_path / "teacher.pth")
    save_file(C.to_timm_names(state), tmp_path / "timm.safetensors")
    converted = {"c.pth": "nested.pth", "d.safetensors": "timm.safetensors"}
    for name, source in converted.items(): C.convert_backbone(tmp_path / source, tmp_path / name, *size)
    def answer(name, load):
        options = dict(embed_dim=48, depth=2, num_heads=3) | (dict(mlp_ratio=4.) if gated else {})
        model = create_model(preset, img_size=size, pretrained=False, **options).eval()
        load(model, tmp_path / name)
        image = torch.linspace(-1, 1, 3 * size[0] * size[1]).view(1, 3, *size)
        with torch.no_grad(): return model.forward_features(image)
    want = answer("facebook.pth", load_weights)
    for name in ["nested.pth", "teacher.pth", "timm.safetensors"]:
        assert torch.equal(answer(name, load_weights), want), name
    bicubic = answer("c.pth", load_weights)
    assert torch.equal(answer("d.safetensors", load_weights), bicubic) and apart(bicubic, want) > .01

    def fit(model, path): # the way of load_published
        state = C.to_timm_names(C.backbone_weights(path))
        model.load_state_dict(C.fit_to_grid(state, model.patch_embed.grid_size, (16, 16)))
    for name in ["facebook.pth", "teacher.pth", "timm.safetensors", *converted]:
        assert torch.equal(answer(name, fit), bicubic), name


def test_a_table_of_another_grid_with_as_many_positions_is_refused(tmp_path):
    "A backbone converted for 256 x 1024 pixels has as many positions as one for 512 x 512 or 1024 x 256."
    torch.save(facebook(), tmp_path / "original.pth")
    C.convert_backbone(tmp_path / "original.pth", tmp_path / "oblong.pth", 256, 1024)
    oblong = dict(embed_dim=48, depth=2, num_heads=3)
    load_weights(create_model("dinov2_s", img_size=(256, 1024), pretrained=False, **oblong), tmp_path / "oblong.pth")
    for size in ((1024, 256), (512, 512)):
        with pytest.raises(ValueError, match=f"converted for 16 x 64 patches, not {size[0] // 16} x {size[1] // 16}"):
            load_weights(create_model("dinov2_s", img_size=size, pretrained=False, **oblong), tmp_path / "oblong.pth")
    old = {k: v for k, v in torch.load(tmp_path / "oblong.pth").items() if k != C.POSITION_GRID}  # as version 0.1 wrote it
    with pytest.raises(ValueError, match="does not say of which grid"): C.fit_to_grid(C.to_timm_names(old), (16, 64), (16, 16))
    with pytest.raises(ValueError, match="converted before"): C.convert_backbone(tmp_path / "oblong.pth", tmp_path / "twice.pth", 512, 512)


def test_rows_of_another_length_are_recognised_in_an_unmarked_table():
    "As version 0.1 converted for an oblong image, loaded at a square of as many patches: neighbours in a row are alike, the ends of rows are not."
    for rows, columns in ((16, 64), (64, 16), (8, 128)):
        y, x = torch.meshgrid(torch.linspace(0, 3, rows), torch.linspace(0, 3, columns), indexing="ij")
        table = torch.stack([x, y, x.sin(), y.cos(), (x - y).sin()], -1).flatten(0, 1)[None]
        with pytest.raises(ValueError, match="does not say of which grid"): check_position_grid(dict(pos_embed=table), (32, 32), "a.pth")
    square = torch.nn.functional.interpolate(table.unflatten(1, (rows, columns)).permute(0, 3, 1, 2), (32, 32), mode="bilinear").flatten(2).transpose(1, 2)
    check_position_grid(dict(pos_embed=square), (32, 32), "a.pth")
    check_position_grid(dict(pos_embed=torch.cat([square[:, :1], square], 1)), (32, 32), "a.pth")
    check_position_grid(dict(pos_embed=torch.randn(1, 1024, 48)), (32, 32), "a.pth")


def test_a_flipped_bit_of_a_converted_backbone_is_noticed(tmp_path):
    torch.save(facebook(), tmp_path / "original.pth")
    file = C.convert_backbone(tmp_path / "original.pth", tmp_path / "converted.safetensors", 64, 64)
    content = bytearray(file.read_bytes())
    before = read_backbone(file)
    for at in np.random.default_rng(0).choice(len(content), 40, replace=False):
        content[at] ^= 16
        file.write_bytes(content)
        try: same = {k: v for k, v in read_backbone(file).items()}
        except ValueError: pass
        else: assert before.keys() == same.keys() and all(torch.equal(v, same[k]) for k, v in before.items())
        content[at] ^= 16


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
        patch, new = (c.get("patch_w", c.get(C.PATCH_WEIGHT)) for c in (source, target))
        assert apart(C.resample_positions(source["pos_embed"], (side, side)), target["pos_embed"]) < 1e-6
        assert apart(C.resample_patch_filters(patch, (16, 16)), new) < 1e-6


@recorded
def test_recorded_adapters_are_recognised():
    cases = [(kind, name, case) for kind in ("rein", "causal") for name, case in golden(f"pieces_{kind}.pt")["reins"].items()]
    for kind, name, case in cases:
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
        predictions = zip(*(x.unbind(1) for x in segmentor.head.predictions(features, queries)))
    assert max(map(apart, features, case["features_raw"])) < 1e-4 and apart(queries, case["querys"]) < 1e-4
    for (classes, masks), c, m in zip(predictions, case["cls_pred_list"], case["mask_pred_list"]):
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
    with pytest.raises(ValueError, match="ConvNeXt"):
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
    state = C.to_timm_names(case["state_dict"])
    vit = C.published_vit(state, num_heads=3, img_size=64)
    vit.load_state_dict(state)
    backbone = create_backbone(vit)
    for size, c in case["cases"].items(): assert max(map(apart, backbone(c["x"]), c["raw"])) < 1e-4, size


def with_head(vit, adapter, **options):
    "A segmentor of two heads around weights by timm's names, at 64 x 64 pixels; adapter and head away from their start."
    torch.manual_seed(1)
    model = C.published_vit(vit, 2, 64)
    model.load_state_dict(vit)
    made = create_backbone(model, adapter, **options)
    head = C.Mask2Former(made.channels, 5, 32, 7, encoder_layers=1, decoder_layers=2, num_heads=8, encoder_hidden=32, decoder_hidden=32,
                         linked=adapter != "none")
    head.uses_queries = head.linked
    for p in made.adapter.parameters(): p.data += .1 * torch.randn_like(p)
    return C.Segmentor(made, head, 5).eval()


REIN = dict(query_dim=32, num_tokens=6, rank=3)


def shapes_of_eva(c=16, hidden=40, side=16, depth=2):
    "EVA-02's pre-training file: every name that a block and the whole have, small."
    shapes = {"cls_token": (1, 1, c), "pos_embed": (1, 1 + side ** 2, c), "patch_embed.proj.weight": (c, 3, 14, 14), "patch_embed.proj.bias": (c,),
              "mask_token": (1, 1, c), "norm.weight": (c,), "norm.bias": (c,), "lm_head.weight": (9, c), "lm_head.bias": (9,),
              "rope.freqs_cos": (side ** 2, c // 2), "rope.freqs_sin": (side ** 2, c // 2)}
    maps = {"attn.proj": (c, c), "mlp.w1": (hidden, c), "mlp.w2": (hidden, c), "mlp.w3": (c, hidden), "mlp.ffn_ln": (hidden,), "norm1": (c,), "norm2": (c,)}
    for i in range(depth):
        block = {f"{name}.{kind}": shape if kind == "weight" else shape[:1] for name, shape in maps.items() for kind in ("weight", "bias")}
        block |= {f"attn.{x}_proj.weight": (c, c) for x in "qkv"} | {"attn.q_bias": (c,), "attn.v_bias": (c,)}
        block |= {f"attn.rope.freqs_{x}": (side ** 2, c // 2) for x in ("cos", "sin")}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def norm(state, name, x, eps=1e-6): return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)


def in_heads(x, heads=2): return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def eva_by_hand(s, images, side=4):
    "EVA-02 block by block, under its authors' names: rotations of 16 x 16 patches, stretched to a grid; gated layers with a norm inside."
    x = F.conv2d(images, s["patch_embed.proj.weight"], s["patch_embed.proj.bias"], stride=16).flatten(2).mT
    x = torch.cat([s["cls_token"].expand(len(x), -1, -1), x], 1) + s["pos_embed"]
    half = x.shape[-1] // 2 // 2
    angles = torch.outer(torch.arange(side) / side * 16, 10000 ** -(torch.arange(0, half, 2) / half)).repeat_interleave(2, 1)
    angles = torch.cat([angles[:, None].expand(side, side, half), angles[None].expand(side, side, half)], -1).flatten(0, 1)
    def turned(q): # all but the class token
        pairs = q[:, :, 1:].unflatten(-1, (-1, 2))
        across = torch.stack([-pairs[..., 1], pairs[..., 0]], -1).flatten(-2)
        return torch.cat([q[:, :, :1], q[:, :, 1:] * angles.cos() + across * angles.sin()], 2)
    features = []
    for i in range(2):
        b = {k.removeprefix(f"blocks.{i}."): v for k, v in s.items() if k.startswith(f"blocks.{i}.")}
        y = norm(b, "norm1", x)
        q, k, v = (in_heads(F.linear(y, b[f"attn.{n}_proj.weight"], b.get(f"attn.{n}_bias"))) for n in "qkv")
        y = F.scaled_dot_product_attention(turned(q), turned(k), v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, b["attn.proj.weight"], b["attn.proj.bias"])
        y = norm(b, "norm2", x)
        gate, value = (F.linear(y, b[f"mlp.{n}.weight"], b[f"mlp.{n}.bias"]) for n in ("w1", "w2"))
        x = x + F.linear(norm(b, "mlp.ffn_ln", F.silu(gate) * value), b["mlp.w3.weight"], b["mlp.w3.bias"])
        features.append(x[:, 1:].mT.unflatten(2, (side, side)))
    return features


@torch.no_grad()
def test_rein_on_eva_02(tmp_path):
    "Adapter and head in one file, EVA-02's own weights for patches of 14 in another, or converted; the answer is the published code's."
    torch.manual_seed(0)
    eva = {name: torch.randn(shape) * .3 for name, shape in shapes_of_eva().items()}
    torch.save(dict(model=eva), tmp_path / "eva02_L_pt_m38m_p14.pt")
    C.convert_backbone(tmp_path / "eva02_L_pt_m38m_p14.pt", tmp_path / "eva02_L_converted.pth", 64, 64)
    converted = torch.load(tmp_path / "eva02_L_converted.pth")
    assert set(converted) == set(eva) | {C.POSITION_GRID} and converted["pos_embed"].shape == (1, 17, 16)
    x, vit = torch.randn(2, 3, 64, 64), C.fit_to_grid(C.to_timm_names(converted), (4, 4), (16, 16))
    plain = create_backbone(C.published_vit(vit, 2, 64), out_layers=(0, 1))
    plain.model.load_state_dict(vit)
    for ours, theirs in zip(plain(x), eva_by_hand(converted, x)): assert torch.allclose(ours, theirs, atol=1e-4)
    trained = with_head(vit, "rein", **REIN)
    torch.save(dict(state_dict=C.published_state(trained)), tmp_path / "iter_40000.pth")
    for backbone in ("eva02_L_pt_m38m_p14.pt", "eva02_L_converted.pth"):
        again = ct.segmentor_from_published(tmp_path / "iter_40000.pth", 2, 64, backbone=tmp_path / backbone)
        assert torch.equal(again(x), trained(x)) and type(again.backbone.model).__name__ == "Eva"
    whole = ct.segmentor_from_published(C.published_state(trained, backbone=True), 2, 64)
    assert torch.equal(whole(x), trained(x))
    clip_like = {f"visual.{k}": v for k, v in eva.items()} | {"text.ln_final.weight": torch.ones(3), "logit_scale": torch.ones(())}
    assert torch.equal(ct.segmentor_from_published(tmp_path / "iter_40000.pth", 2, 64, backbone=clip_like)(x), trained(x))
    with pytest.raises(ValueError, match="missing .*backbone.blocks.1.mlp.fc1_x.weight"):
        ct.load_published(again, tmp_path / "iter_40000.pth", {k: v for k, v in converted.items() if k != "blocks.1.mlp.w2.weight"})


def shapes_of_clip(c=16, side=7, depth=2):
    "OpenAI's file of CLIP, as far as it is the transformer of images."
    shapes = {"class_embedding": (c,), "positional_embedding": (1 + side ** 2, c), "conv1.weight": (c, 3, 14, 14), "proj": (c, 8)}
    maps = {"attn.out_proj": (c, c), "ln_1": (c,), "ln_2": (c,), "mlp.c_fc": (4 * c, c), "mlp.c_proj": (c, 4 * c)}
    for name in ("ln_pre", "ln_post"): shapes |= {f"{name}.weight": (c,), f"{name}.bias": (c,)}
    for i in range(depth):
        block = {f"{name}.{kind}": shape if kind == "weight" else shape[:1] for name, shape in maps.items() for kind in ("weight", "bias")}
        block |= {"attn.in_proj_weight": (3 * c, c), "attn.in_proj_bias": (3 * c,)}
        shapes |= {f"transformer.resblocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


def clip_by_hand(s, images):
    "CLIP as Rein's code computes it: filters bicubic, positions bilinear at any size, the class embedding added twice."
    filters = F.interpolate(s["conv1.weight"], size=16, mode="bicubic", align_corners=False)
    x = F.conv2d(images, filters, stride=16)
    h, w = x.shape[-2:]
    pos, side = s["positional_embedding"], 4
    def stretched(table, old, size): return F.interpolate(table.view(1, old, old, -1).permute(0, 3, 1, 2), size=size, mode="bilinear").flatten(2).mT
    patches = stretched(stretched(pos[1:], 7, (side, side)), side, (h, w))
    cls = (s["class_embedding"] + pos[0] + s["class_embedding"]).expand(len(x), 1, -1)
    x = norm(s, "ln_pre", torch.cat([cls, x.flatten(2).mT + patches], 1), 1e-5)
    features = []
    for i in range(2):
        b = {k.removeprefix(f"transformer.resblocks.{i}."): v for k, v in s.items() if k.startswith(f"transformer.resblocks.{i}.")}
        q, k, v = (in_heads(y) for y in F.linear(norm(b, "ln_1", x, 1e-5), b["attn.in_proj_weight"], b["attn.in_proj_bias"]).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, b["attn.out_proj.weight"], b["attn.out_proj.bias"])
        y = F.linear(norm(b, "ln_2", x, 1e-5), b["mlp.c_fc.weight"], b["mlp.c_fc.bias"])
        x = x + F.linear(y * torch.sigmoid(1.702 * y), b["mlp.c_proj.weight"], b["mlp.c_proj.bias"])
        features.append(x[:, 1:].mT.unflatten(2, (h, w)))
    return features


@torch.no_grad()
def test_rein_on_clip(tmp_path):
    "From OpenAI's names, half precision and a text tower beside; on images of the size of training and on others."
    torch.manual_seed(0)
    clip = {name: torch.randn(shape).half() * .3 for name, shape in shapes_of_clip().items()}
    torch.save({f"visual.{k}": v for k, v in clip.items()} | {"ln_final.weight": torch.ones(3), "logit_scale": torch.ones(())}, tmp_path / "clip.pth")
    C.convert_backbone(tmp_path / "clip.pth", tmp_path / "converted.pth", 64, 64)
    exact = {k: v.float() for k, v in clip.items()}
    vit = C.fit_to_grid(C.to_timm_names(C.backbone_weights({f"visual.{k}": v for k, v in exact.items()})), (4, 4), (16, 16))
    trained = with_head(vit, "rein", **REIN)
    plain = create_backbone(C.published_vit(vit, 2, 64), out_layers=(0, 1))
    plain.model.load_state_dict(vit)
    for size in ((64, 64), (64, 96)):
        x = torch.randn(2, 3, *size)
        for ours, theirs in zip(plain(x), clip_by_hand(exact, x)): assert torch.allclose(ours, theirs, atol=1e-3)
        for backbone in ("clip.pth", "converted.pth"):
            again = ct.segmentor_from_published(C.published_state(trained), 2, 64, backbone=tmp_path / backbone)
            assert apart(again(x), trained(x)) < .02  # positions and filters of half precision
        whole = ct.segmentor_from_published(C.published_state(trained, backbone=True), 2, 64)
        assert torch.equal(whole(x), trained(x))
    with pytest.raises(ValueError, match="Not of a published checkpoint: neck.lateral_convs.0.conv.weight"):
        ct.load_published(again, C.published_state(trained) | {"neck.lateral_convs.0.conv.weight": torch.ones(1)}, tmp_path / "clip.pth")


@torch.no_grad()
def test_soma(tmp_path):
    "A file of its tools (maps of low rank, biases, head; averaged weights first) on a backbone, and the merged one: W + BA."
    state = facebook(c=48)
    vit = C.fit_to_grid(C.to_timm_names(state), (4, 4), (16, 16))
    tuned, reference = {}, with_head(vit, "none")
    lora = create_backbone(reference.backbone.model.__class__(64, 16, num_classes=0, embed_dim=48, depth=2, num_heads=2, init_values=1.,
                           dynamic_img_size=True), "lora", rank=2, first_layer=1)
    for name, linear, parts in [(n, m, 3 if n.endswith("qkv") else 1) for n, m in lora.model.blocks[1].named_modules() if isinstance(m, torch.nn.Linear)]:
        low = lora.adapter.maps[f"1_{name}".replace(".", "_")]
        low.b.normal_(std=.2)
        for which, a, b in zip("qkv" if parts == 3 else [None], low.a, low.b):
            place = f"blocks.1.{name}".replace("qkv", which or "qkv")
            tuned |= {f"{place}.lora_A.weight": a, f"{place}.lora_B.weight": b}
    biases = {k: torch.randn_like(v) for k, v in C.split_qkv(C.to_timm_names(state)).items() if k.endswith(".bias")}
    lora.model.load_state_dict(vit | C.stack_qkv(biases))
    extracted = {f"backbone.model.{k}": v for k, v in (tuned | biases | {"mask_token": torch.zeros(1, 48)}).items()} | C.published_state(reference)
    raw = {f"module.{k}": torch.randn_like(v) for k, v in extracted.items()}
    torch.save(dict(state_dict=extracted, ema_state_dict=raw | {"steps": torch.tensor(9)}), tmp_path / "soma_best.pth")
    merged = {f"backbone.model.{k}": v for k, v in C.split_qkv(state).items()} | extracted
    x = torch.randn(2, 3, 64, 64)
    found = ct.segmentor_from_published(tmp_path / "soma_best.pth", 2, 64, backbone=state)
    assert torch.allclose(found.backbone(x)[-1], lora(x)[-1], atol=1e-4) and apart(reference.backbone(x)[-1], lora(x)[-1]) > .1
    reference.backbone = found.backbone
    assert torch.equal(found(x), reference(x)) and type(found.adapter).__name__ == "Adapter"
    whole = merged | {f"backbone.model.{k}": vit[k] for k in ("pos_embed", C.PATCH_WEIGHT)}  # as its converter leaves them
    assert torch.allclose(ct.segmentor_from_published(whole, 2, 64)(x), found(x), atol=1e-5)
    recipe = ct.get_recipe("g2cbm_512", backbone="test_vit", img_size=(64, 64))
    with pytest.raises(ValueError, match="blocks.1.mlp.fc1.lora_B.weight"):
        ct.segmentor_from_published({k: v for k, v in whole.items() if not k.endswith("mlp.fc1.lora_B.weight")}, 2, 64)
    told = C.open_published(recipe, whole)[1]
    assert (told.adapter, told.rank, told.variant) == ("soma", 2, None)


@torch.no_grad()
def test_files_of_set_and_of_causal_tune_are_told_apart_by_their_reader(tmp_path):
    vit, x = C.fit_to_grid(C.to_timm_names(facebook(c=48)), (4, 4), (16, 16)), torch.randn(2, 3, 64, 64)
    trained = with_head(vit, "set:variant=released", **REIN)
    checkpoint = C.published_state(trained)
    both = [ct.segmentor_from_published(checkpoint, 2, 64, backbone=vit, adapter=name) for name in ("set:variant=released", None)]
    assert [type(s.adapter).__name__ for s in both] == ["ReleasedSET", "ReleasedCausalTune"]
    assert torch.equal(both[0](x), trained(x)) and apart(both[1](x), trained(x)) > 1e-3
    for adapter, expected in (("set", "set"), ("causal_tune", "causal_tune"), ("rein", "causal_tune")):
        recipe = ct.get_recipe("g2cbm_512", backbone="test_vit", img_size=(64, 64), adapter=adapter)
        told = C.open_published(recipe, checkpoint, vit)[1]
        assert (told.adapter, told.variant) == (expected, "released")
