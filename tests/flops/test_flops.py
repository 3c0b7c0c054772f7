"""FLOPs against the paper's printed figures and PAPER.md's exact integers."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from clockwork.adaptors import Adaptor, FeatureDims, ResNet, UNet
from clockwork.flops.counter import Flops, count_flops
from clockwork.teachers.architectures import meta_unet
from clockwork.unet.split import SplitUNet

WIDTHS = FeatureDims(320, 640, 1280, 1024)
# One call of each op that is counted, on x of 2 × 4 × 6 × 8 = 384 elements, by hand: macs, paper, full.
OPS: dict[str, tuple[Callable[[Tensor], Tensor], Flops]] = {
    "silu": (nn.SiLU(), Flops(0, 384, 0)),
    "gelu": (nn.GELU(), Flops(0, 384, 0)),
    "gelu, tanh": (nn.GELU("tanh"), Flops(0, 384, 0)),
    "group norm": (nn.GroupNorm(2, 4), Flops(0, 5 * 384, 0)),
    "layer norm": (nn.LayerNorm(8), Flops(0, 5 * 384, 0)),
    "upsampling by size": (lambda x: F.interpolate(x, size=(12, 16), mode="nearest"), Flops(0, 4 * 384, 0)),
    "upsampling by factor": (lambda x: F.interpolate(x, scale_factor=2.0, mode="nearest"), Flops(0, 4 * 384, 0)),
    # 2 images · 48 places · 3 × 3 · 4 · 5 = 17,280 multiply-adds; 2 · 48 · 5 = 480 outputs
    "convolution": (nn.Conv2d(4, 5, 3, padding=1, bias=False), Flops(17_280, 34_560, 34_560)),
    "convolution with a bias": (nn.Conv2d(4, 5, 3, padding=1), Flops(17_280, 34_560 + 480, 34_560)),
    "convolution in two groups": (nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False), Flops(10_368, 20_736, 20_736)),
    # each of the 2 · 48 places times 2 × 2 · 4 · 5; outputs 2 · 5 · 12 · 16
    "transposed convolution": (nn.ConvTranspose2d(4, 5, 2, stride=2), Flops(7_680, 15_360 + 1_920, 15_360)),
    # 48 rows · 8 · 3
    "linear": (nn.Linear(8, 3, bias=False), Flops(1_152, 2_304, 2_304)),
    "linear with a bias": (nn.Linear(8, 3), Flops(1_152, 2_304, 2_304)),
    # 2 · 4 heads, twice 6 · 6 · 8 multiply-adds
    "attention": (lambda x: F.scaled_dot_product_attention(x, x, x), Flops(0, 0, 2 * 8 * 2 * 288)),
    "matrix product": (lambda x: x @ x.mT, Flops(0, 0, 2 * 8 * 288)),
}


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize("op", list(OPS))
def test_each_op_is_counted(op: str, device: str) -> None:
    """Whatever this release of torch decomposes."""
    call, flops = OPS[op]
    module = copy.deepcopy(call).to(device) if isinstance(call, nn.Module) else call
    x = torch.zeros(2, 4, 6, 8, device=device)
    assert count_flops(lambda: module(x)) == flops


def passes(unet: UNet2DConditionModel, cut: str = "stage1") -> tuple[Flops, Flops]:
    """A full pass and an identity pass at 64 × 64 latents."""
    with torch.device("meta"):
        call = (torch.empty(1, 4, 64, 64), torch.tensor(1), torch.empty(1, 77, 768))
    split = SplitUNet(unet, cut)
    e = split.embed(*call)
    r_out = split.low(split.high_in(e), e)

    def identity() -> None:
        e = split.embed(*call)
        split.high_out(r_out, split.high_in(e), e)

    return count_flops(lambda: unet(*call)), count_flops(identity)


def test_sd15_to_the_last_digit() -> None:
    full, identity = passes(meta_unet("sd15"))
    assert full.paper == 677_765_165_824
    assert full.full == 803_273_441_280
    assert full.macs == pytest.approx(338.61e9, rel=1e-5)
    assert identity.paper == 228_428_701_184
    assert identity.macs == pytest.approx(114.06e9, rel=1e-4)
    assert identity.full == pytest.approx(337.509e9, rel=1e-5)


def test_efficient_unet_to_the_last_digit() -> None:
    full, identity = passes(meta_unet("efficient"))
    assert full.paper == 593_330_221_824
    assert identity.paper == 143_993_757_184


def test_upsampler_inside_the_low_res_path_saves_one_convolution() -> None:
    """The authors' public code: 30.2 GFLOPs cheaper (Section 1 of PAPER.md)."""
    unet = meta_unet("sd15")
    saved = passes(unet)[1].paper - passes(unet, "stage1_upsampled")[1].paper
    assert saved == pytest.approx(30.2e9, rel=2e-3)


@pytest.mark.parametrize(
    ("width", "blocks", "gflops"),
    [(448, 2, 300.54), (640, 4, 324.48), (96, 2, 289.29)],
    ids=["resnet", "unet", "light"],
)
def test_adaptor_steps_of_table_3(width: int, blocks: int, gflops: float) -> None:
    """Efficient UNet, batch of two: the paper prints 301, 324 and 289."""
    with torch.device("meta"):
        adaptor: Adaptor = ResNet(WIDTHS, width, blocks) if width == 448 else UNet(WIDTHS, width, blocks)
        inputs = [torch.empty(s) for s in ((1, 320, 32, 32), (1, 640, 32, 32), (1, 1280), (1, 1024))]
    step = passes(meta_unet("efficient"))[1].paper + count_flops(lambda: adaptor(*inputs)).paper
    assert round(2 * step / 1e9, 2) == gflops
