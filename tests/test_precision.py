"""Models of half the precision: every adapter and every head, from an image to its labels.

Each adapter meets one of the heads in turn, and each head two adapters or more. What the two exchange are features and queries: an adapter that fails in
half the precision fails under every head, and a head under every adapter.
"""
import numpy as np, pytest, torch
import causal_tune as ct  # before timm: repairs torchvision
from timm.models.vision_transformer import VisionTransformer

HEADS = ["linear", "dpt:width=16", "mask2former:width=32,num_queries=5,encoder_layers=1,decoder_layers=3,encoder_hidden=32,decoder_hidden=32",
         "pmt:num_queries=5,decoder_layers=2"]
ADAPTERS = ["none", "rein", "set", "set:variant=released", "fada", "causal_tune", "causal_tune:band=learnable", "causal_tune:variant=released",
            "lora:rank=4", "soma:rank=4,first_layer=0", "full"]
PAIRS = [(adapter, HEADS[i % len(HEADS)]) for i, adapter in enumerate(ADAPTERS)]


def segmentor(adapter, head):
    torch.manual_seed(0)
    model = VisionTransformer(img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=3, num_classes=0, global_pool="",
                              dynamic_img_size=True)
    return ct.create_segmentor(model, adapter, head, num_classes=4).eval()


@pytest.mark.parametrize("adapter, head", PAIRS)
@pytest.mark.parametrize("precision", ["half", "bfloat16"])
def test_half_the_precision(adapter, head, precision):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    model = segmentor(adapter, head)
    whole = model.predict(image)
    scores = model(model.preprocess(torch.from_numpy(image).permute(2, 0, 1)[None]))
    small = getattr(model, precision)()
    labels = small.predict(image)
    assert labels.shape == whole.shape
    near = small(small.preprocess(torch.from_numpy(image).permute(2, 0, 1)[None]))
    assert near.dtype == torch.float32  # scores are compared and averaged in full precision
    assert (near - scores).abs().mean() < .03 * scores.abs().max()
