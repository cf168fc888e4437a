"""The Mask2Former head and the system around it, against recordings of the published implementation.

The recordings are too large for the repository; where `CAUSAL_TUNE_DATA/golden` holds them they are compared whole, elsewhere
those tests are skipped. `tests/fixtures/mask2former.pt` has the small ones: `ops`, `assign`, `loss_fn` and `sine_pe_5x7` are
recordings of the published code (the chapter `mask2former` compares them); `anchor` are scores and losses of this implementation, taken when
it agreed with all recordings, so that a change of the wiring is noticed everywhere.
"""
import json, math, os
from pathlib import Path
import pytest
import torch
import causal_tune  # noqa: F401  # before timm
from conftest import ROOT
from causal_tune.models import mask2former as m2f
from causal_tune.models.acceleration import StepCounter
from causal_tune.models.backbones import create_backbone
from causal_tune.models.mask2former import Mask2Former
from causal_tune.models.segmentor import create_segmentor
from causal_tune.training.build import parameter_groups

GOLDEN = Path(os.environ.get("CAUSAL_TUNE_DATA", "data")) / "golden"
SMALL = dict(width=32, num_queries=8, encoder_layers=1, decoder_layers=3, num_heads=4, encoder_hidden=64,
             decoder_hidden=64, points=64)


def recording(name):
    if not (GOLDEN / name).is_file(): pytest.skip(f"needs the recording {name} in {GOLDEN}")
    return json.loads((GOLDEN / name).read_text()) if name.endswith(".json") else torch.load(GOLDEN / name, weights_only=True)


def near(ours, theirs, atol=1e-4):
    assert ours.shape == theirs.shape and (ours - theirs).abs().max() < atol, (ours - theirs).abs().max()


def part(state, prefix): return {k[len(prefix):]: v for k, v in state.items() if k.startswith(prefix)}


# The parts

def test_pixel_decoder():
    r = recording("pieces_shared.pt")["pixel_decoder"]
    decoder, inside = m2f.PixelDecoder(32, width=32, layers=2, heads=4, hidden=64), []
    decoder.load_state_dict(r["state_dict"])
    for layer in decoder.encoder.layers: layer.register_forward_hook(lambda *args: inside.append(args[-1].unflatten(0, (len(r["feats"][0]), -1))[:1]))
    pixels, maps, _ = decoder(r["feats"])
    for ours, theirs in [(pixels, r["mask_feature"]), *zip(maps, r["memorys"]), *zip(inside, r["enc"].values())]:
        near(ours, theirs)


def test_decoder_layers():
    r = recording("pieces_shared.pt")["transformer_decoder"]
    layers = torch.nn.ModuleList(m2f.DecoderLayer(32, 4, 64) for _ in range(3))
    decoder = torch.nn.ModuleDict(dict(layers=layers, post_norm=torch.nn.LayerNorm(32)))
    decoder.load_state_dict(r["state_dict"])
    batch = len(r["query"])
    x, place, tokens, keys = (y.flatten(0, 1) for y in (r["query"], r["query_pos"].expand_as(r["query"]), r["key"], r["key"] + r["key_pos"]))
    for layer, step in zip(layers, r["steps"]):
        x = layer(x, place, tokens, keys, ~r["cross_attn_mask"].unflatten(0, (batch, -1)))
        near(x, step.flatten(0, 1))
    near(decoder.post_norm(x), r["post_norm"].flatten(0, 1))


def test_head(monkeypatch):
    r = recording("pieces_shared.pt")
    head = Mask2Former(32, 19, **SMALL | dict(encoder_layers=2), linked=True)
    head.load_state_dict(r["head"]["state_dict"])
    monkeypatch.setattr(m2f, "feature_pyramid", lambda levels: levels)  # the recording starts after it
    levels, queries = r["pixel_decoder"]["feats"], r["head"]["query_embed"]
    classes, masks = head.predictions(levels, queries)
    for ours, theirs in zip(classes.unbind(1), r["head"]["cls"]): near(ours, theirs)
    near(masks[:, -1], r["head"]["mask"])
    scores = head(levels, queries, (128, 160))
    near(scores[:, 0], r["head"]["seg_logits_ch0"])
    assert torch.equal(scores.argmax(1), r["head"]["seg_label"].long())


# The system

@pytest.fixture(scope="module")
def system():
    "The recorded segmentor, and the recording."
    import timm
    r = recording("segmentor_rein.pt")
    vit = timm.models.VisionTransformer(img_size=128, patch_size=16, embed_dim=96, depth=4, num_heads=3, init_values=1e-5,
                                        num_classes=0, dynamic_img_size=True)
    backbone = create_backbone(vit, "rein", out_layers=range(4), query_dim=64, num_tokens=20, rank=4)
    head = ("mask2former:width=64,encoder_layers=2,decoder_layers=3,num_heads=4,encoder_hidden=128,decoder_hidden=128,"
            "points=256")
    s = create_segmentor(backbone, head=head).eval()
    frozen = part(r["params"], "backbone.")
    vit.load_state_dict({k: v for k, v in frozen.items() if not k.startswith(("reins", "mask_token"))})
    s.adapter.load_state_dict(part(frozen, "reins."))
    s.head.load_state_dict(part(r["params"], "decode_head."))
    return s, r


@torch.no_grad()
def test_outputs(system):
    s, r = system
    features, queries = s.features(r["input"])
    pixels, maps, _ = s.head.pixel_decoder(m2f.feature_pyramid(features))
    classes, masks = (x.unbind(1) for x in s.head.predictions(features, queries))
    for ours, theirs in [*zip(features, r["features_raw"]), (queries, r["querys"]), (pixels, r["mask_features"]),
                         *zip([f[:, :16] for f in m2f.feature_pyramid(features)], r["features_ms"]),
                         *zip(maps, r["multi_scale_memorys"]), *zip(classes, r["cls_pred_list"]),
                         *((m[:len(t)], t) for m, t in zip(masks, r["mask_pred_list"]))]: near(ours, theirs)
    scores = s(r["input"])
    near(scores[0], r["seg_logits_img0"])
    near(scores[..., ::2, ::2], r["seg_logits_stride2"])
    assert torch.equal(scores.argmax(1), r["pred_label"].long())


def test_sliding_windows(system):
    s, r = system
    scores = s.slide(r["slide"]["input"], r["slide"]["crop"], r["slide"]["stride"])
    near(scores[..., ::4, ::4], r["slide"]["logits_stride4"])
    assert torch.equal(scores.argmax(1), r["slide"]["label"].long())


def by_layer(losses): # d0.loss_cls, d0.loss_mask, ... before the first layer, and on to loss_cls, ... of the last: the published names
    last = len(losses["loss_cls"]) - 1
    return {(f"d{i}." if i < last else "") + name: values[i] for i in range(last + 1) for name, values in losses.items()}


class Recorded:
    "Numbers that were drawn for a whole batch, handed out one image after the other."
    def __init__(self, draws): self.left = torch.cat([d.float().flatten() for d in draws])
    def __call__(self, *shape):
        drawn, self.left = self.left.split([math.prod(shape), len(self.left) - math.prod(shape)])
        return drawn.view(shape)


def test_losses_gradients_and_a_step(system, monkeypatch):
    s, r = system
    drawn, pairs, assign = Recorded(r["rand_log"]), [], m2f.hungarian_match
    monkeypatch.setattr(Mask2Former, "draw", lambda self, *shape, device: drawn(*shape))
    def noted(costs, counts):
        pairs.extend(pair for layer in assign(costs, counts) for pair in layer)
        return assign(costs, counts)
    monkeypatch.setattr(m2f, "hungarian_match", noted)
    present = m2f.present_classes(r["gt"].long(), 19)
    named = by_layer(s.head.losses(*s.features(r["input"]), r["gt"].long()))
    assert not len(drawn.left) and {f"decode.{k}" for k in named} == set(r["losses"])
    for k, v in r["losses"].items(): near(named[k.removeprefix("decode.")], v.squeeze())
    for i, ((q, n), theirs) in enumerate(zip(pairs, r["assigned"], strict=True)):
        ids = present[i % len(present)]
        assert q.tolist() == theirs["pos_inds"].tolist() and [ids[j] for j in n] == theirs["labels"][theirs["pos_inds"]].tolist()
    total = sum(named.values())
    near(total, r["loss_total"])
    total.backward()
    head, adapter = dict(s.head.named_parameters()), dict(s.adapter.named_parameters())
    for k, v in r["adapter_grads"].items(): near(adapter[k.removeprefix("backbone.reins.")].grad, v)
    for k, v in r["head_grads_some"].items(): near(head[k.removeprefix("decode_head.")].grad, v)
    for k, v in r["head_grad_norms"].items(): assert abs(head[k.removeprefix("decode_head.")].grad.norm() - v) < 1e-4
    torch.optim.AdamW(parameter_groups(s, .05), lr=1e-4, betas=(.9, .999)).step()
    for k, v in r["adapter_after_1_adamw_step"].items(): near(adapter[k.removeprefix("backbone.reins.")], v, atol=1e-6)


def published_name(name): return name.replace("backbone.adapter.", "backbone.reins.") if "adapter" in name else f"decode_{name}"


def test_decay(system):
    s, groups = system[0], {g["name"]: g["weight_decay"] for g in recording("param_groups_rein.json")}
    decay = {id(p): g["weight_decay"] for g in parameter_groups(s, .05) for p in g["params"]}
    ours = {published_name(n): decay[id(p)] for n, p in s.named_parameters() if p.requires_grad}
    assert ours == groups
    assert ours["decode_head.pixel_decoder.level_encoding.weight"] > ours["decode_head.level_embed.weight"] == 0


def test_names_and_shapes_at_full_size():
    r = part(recording("full_vitl_keys_rein.json")["params"], "decode_head.")
    with torch.device("meta"): head = Mask2Former(1024, 19, linked=True)
    assert {k: list(v.shape) for k, v in head.state_dict().items()} == r


# Without recordings

def waves(head):
    "Weights that are the same everywhere, whatever the generator."
    for i, (name, p) in enumerate(head.named_parameters()):
        wave = (torch.arange(p.numel()).double() ** 2 * (1 + i / 7)).sin().view(p.shape)
        scale = 1.4 / p.shape[1:].numel() ** .5 if p.dim() > 1 else .3
        p.data.copy_(scale * wave + float(p.dim() == 1 and name.endswith("weight")))  # norms around 1
    return head.eval()


def anchor(draws):
    "Scores and losses of such a head on features that are waves, too."
    head = waves(Mask2Former(32, 5, **SMALL))
    drawn = Recorded(draws)
    head.draw = lambda *shape, device: drawn(*shape)
    wave = lambda k: (torch.arange(2 * 32 * 24).double() ** 2 * k).sin().float().view(2, 32, 4, 6)
    features, labels = [wave(k) for k in (.3, .7, 1.1, 1.9)], torch.arange(20).div(6, rounding_mode="floor").repeat(2, 15, 1)
    labels[1, :, :10] = 255
    with torch.no_grad(): return head(features, size=(15, 20)), by_layer(head.losses(features, None, labels))


def test_wiring_is_what_it_was():
    r = torch.load(ROOT / "tests/fixtures/mask2former.pt", weights_only=True)["anchor"]
    scores, losses = anchor(r["draws"])
    near(scores, r["scores"])
    assert losses.keys() == r["losses"].keys()
    for k, v in r["losses"].items(): near(losses[k], v, atol=1e-3)


RENAMED = [("input_convs", "input_projections"), (".conv.", ".0."), (".gn.", ".1."), ("mask_feature", "mask_projection"),
           ("lateral_convs.0", "adapter_1"), ("output_convs.0", "layer_1"), ("level_encoding.weight", "level_embed"),
           ("ffn.layers.0.0", "fc1"), ("ffn.layers.1", "fc2"), (".attn.", "."), ("transformer_decoder", "decoder"),
           ("post_norm", "layernorm"), ("query_embed", "queries_embedder"), ("query_feat", "queries_features"),
           *((f"mask_embed.{2 * i}", f"decoder.mask_predictor.mask_embedder.{i}.0") for i in range(3))]


def in_their_words(state, norms): # names of transformers, whose self-attention keeps q, k and v apart
    names, state = [*RENAMED, *((f"norms.{i}", n) for i, n in enumerate(norms))], dict(state)
    for k in [k for k in state if "self_attn.attn.in_proj" in k]:
        for name, p in zip("qkv", state.pop(k).chunk(3)): state[k.replace("attn.in_proj_", f"{name}_proj.")] = p
    for old, new in names: state = {k.replace(old, new): v for k, v in state.items()}
    return state


@torch.no_grad()
@pytest.mark.parametrize("grid", [(2, 6), (4, 4), (7, 10)])
def test_transformers_agrees(grid):
    "A second implementation, at sizes and weights without recordings: other names, the same numbers."
    import torchvision  # noqa: F401  # before transformers, which only looks whether it is there
    hf = pytest.importorskip("transformers.models.mask2former.modeling_mask2former")
    config = hf.Mask2FormerConfig(feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64, num_queries=8,
                                  encoder_layers=1, decoder_layers=4, num_attention_heads=4, dim_feedforward=64, dropout=0.)
    head = waves(Mask2Former(32, 5, **SMALL))
    pixel = hf.Mask2FormerPixelDecoder(config, feature_channels=[32] * 4).eval()
    decoder = hf.Mask2FormerTransformerModule(in_features=32, config=config).eval()
    norms, state = ["self_attn_layer_norm", "final_layer_norm"], head.state_dict()
    pixel.load_state_dict(in_their_words(part(state, "pixel_decoder."), norms))
    rest = {k: v for k, v in state.items() if not k.startswith(("pixel_decoder", "cls_embed"))}
    decoder.load_state_dict(in_their_words(rest, ["cross_attn_layer_norm", *norms]))
    torch.manual_seed(0)
    features = [torch.randn(2, 32, *grid) for _ in range(4)]
    found = pixel(m2f.feature_pyramid(features), return_dict=True)
    said = decoder(found.multi_scale_features, found.mask_features)
    ours = zip(*(x.unbind(1) for x in head.predictions(features)))
    for (classes, masks), x, m in zip(ours, said.intermediate_hidden_states, said.masks_queries_logits):
        near(classes, head.cls_embed(x.transpose(0, 1)))
        near(masks, m)
        found, theirs = m2f.semantic_scores(classes, masks), m2f.semantic_scores(head.cls_embed(x.transpose(0, 1)), m)
        assert torch.equal(found.argmax(1), theirs.argmax(1))


@pytest.mark.parametrize("adapter", ["none", "rein"])
def test_images_without_labels_train_all_parameters(adapter):
    "Multi-process training needs a gradient for every parameter, also for images without labels."
    spec = "mask2former:" + ",".join(f"{k}={v}" for k, v in SMALL.items())
    s = create_segmentor("toy_vit", adapter, spec, num_classes=5, pretrained=False)
    loss = s.loss(torch.randn(2, 3, 40, 56), torch.full((2, 40, 56), 255))
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None for p in s.parameters() if p.requires_grad)


@pytest.mark.parametrize("batch, before", [(1, 7622), (2, 8516), (4, 9686)])
def test_a_step_dispatches_less_than_half(batch, before):
    "Of what the first form dispatched for loss and backward, at the published numbers of layers; and no more for more images."
    torch.manual_seed(0)
    head = Mask2Former(32, 19, **SMALL | dict(encoder_layers=6, decoder_layers=9))
    features = [torch.randn(batch, 32, 4, 6, requires_grad=True) for _ in range(4)]
    labels = torch.arange(19).repeat_interleave(4).expand(batch, 8, -1)
    with StepCounter() as counter: head.loss(features, None, labels).backward()
    assert counter.operations < min(before / 2, 3700)


def test_labels_of_another_size_mean_the_same():
    head = waves(Mask2Former(32, 5, **SMALL))
    features = [torch.randn(1, 32, 4, 6) for _ in range(4)]
    labels = torch.zeros(1, 32, 48, dtype=torch.long); labels[..., 24:] = 3
    torch.manual_seed(0); small = head.loss(features, None, labels)
    torch.manual_seed(0); large = head.loss(features, None, labels.repeat_interleave(4, 1).repeat_interleave(4, 2))
    assert abs(small - large) < .1 * small


def test_labels_are_padded_like_the_image():
    "33 x 50 pixels are 5 x 7 patches of 8: 7 more rows, 6 more columns, which belong to nothing."
    seen, spec = [], "mask2former:" + ",".join(f"{k}={v}" for k, v in SMALL.items())
    s = create_segmentor("toy_vit", "none", spec, num_classes=5, pretrained=False)
    s.head.loss = lambda features, queries, labels, seeds: [seen.append(labels), torch.zeros(())][1]
    s.loss(torch.randn(1, 3, 33, 50), torch.zeros(1, 33, 50, dtype=torch.long))
    s.loss(torch.randn(1, 3, 33, 50), torch.zeros(1, 66, 100, dtype=torch.long))
    assert seen[0].shape == (1, 40, 56) and seen[1].shape == (1, 80, 112)
    for labels, k in zip(seen, (1, 2)): assert (labels != 255).sum() == 33 * 50 * k * k


@pytest.mark.parametrize("adapter", ["none", "rein", "causal_tune"])
def test_bf16_step(adapter):
    torch.manual_seed(0)
    spec = "mask2former:" + ",".join(f"{k}={v}" for k, v in SMALL.items())
    s = create_segmentor("toy_vit", adapter, spec, num_classes=5, pretrained=False)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = s.loss(torch.randn(2, 3, 40, 56), torch.randint(0, 5, (2, 40, 56)))
        scores = s(torch.randn(1, 3, 40, 56))
    loss.backward()
    assert loss.isfinite() and loss.dtype == scores.dtype == torch.float32
    assert all(p.grad.isfinite().all() for p in s.parameters() if p.requires_grad)


def test_a_broken_model_is_reported_by_its_loss():
    head = Mask2Former(32, 5, **SMALL)
    head.cls_embed.bias.data.fill_(float("nan"))
    assert head.loss([torch.randn(1, 32, 4, 6) for _ in range(4)], None, torch.zeros(1, 8, 8, dtype=torch.long)).isnan()


def test_published_start():
    torch.manual_seed(0)
    head = Mask2Former(256, 19, encoder_layers=1, decoder_layers=1)
    attention = head.pixel_decoder.encoder.layers[0].self_attn
    offsets = attention.sampling_offsets.bias.view(8, 3, 4, 2)
    assert torch.equal(offsets[0, 0], torch.tensor([[1., 0], [2, 0], [3, 0], [4, 0]]))
    assert offsets[1, 2, 3].allclose(torch.tensor([4., 4])) and not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any() and not attention.attention_weights.bias.any()
    std = lambda fan_in, fan_out: (2 / (fan_in + fan_out)) ** .5
    layer = head.transformer_decoder.layers[0]
    expected = {head.pixel_decoder.input_convs[0].conv.weight: std(256, 256), attention.value_proj.weight: std(256, 256),
                head.pixel_decoder.mask_feature.weight: (1 / 256) ** .5, layer.ffn.layers[1].weight: std(256, 2048),
                head.pixel_decoder.output_convs[0].conv.weight: (1 / (9 * 256)) ** .5,
                layer.cross_attn.attn.in_proj_weight: std(256, 768), head.query_feat.weight: 1., head.query_embed.weight: 1.,
                head.level_embed.weight: 1., head.pixel_decoder.level_encoding.weight: 1.}
    for p, s in expected.items(): assert abs(p.std() / s - 1) < .1, (p.shape, p.std(), s)
    for p in (layer.self_attn.attn.in_proj_bias, layer.self_attn.attn.out_proj.bias, attention.value_proj.bias,
              attention.output_proj.bias, head.pixel_decoder.mask_feature.bias, head.pixel_decoder.input_convs[0].conv.bias):
        assert not p.any()


def count_in_process(rank, world, port, counts):
    import torch.distributed as dist
    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    head, seen, own = waves(Mask2Former(32, 5, **SMALL)), [], m2f.normalisers
    m2f.normalisers = lambda *args: seen.append(own(*args)) or seen[0]
    labels = torch.full((2, 8, 8), 255)
    if rank: labels[0].flatten()[:4] = torch.arange(4)  # four classes and none; the other process has none and none
    head.losses([torch.zeros(2, 32, 4, 6) for _ in range(4)], None, labels)
    counts[rank] = seen[0].tolist()
    dist.destroy_process_group()


def test_number_of_masks_is_a_mean_over_processes():
    import socket
    import torch.multiprocessing as mp
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    counts = mp.get_context("fork").Manager().dict()
    mp.start_processes(count_in_process, (2, port, counts), nprocs=2, start_method="fork")
    things, weight = counts[0]
    assert counts[1] == [things, weight] and things == 3.5  # (1 + 1 + 4 + 1) / 2
    assert weight == pytest.approx(.1 * 2 * SMALL["num_queries"] + .9 * 4 / 2)
