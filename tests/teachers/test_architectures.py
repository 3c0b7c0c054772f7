"""The published UNets at real size, without weights: their parameters are the published ones."""

import pytest
from diffusers import UNet2DConditionModel

from clockwork.teachers.architectures import ARCHITECTURES, architecture, meta_unet

# sd15 and efficient: the paper, Section 5; BK-SDM: arXiv 2305.15798, Table 1 (579.4, 482.3 and 323.4M);
# the others: what the published checkpoints hold. distilled adds one linear layer, 256 → 320, without bias.
PARAMETERS = {
    "sd15": 859_520_964,
    "efficient": 846_789_764,
    "distilled": 846_789_764 + 256 * 320,
    "bk_sdm_base": 579_384_964,
    "bk_sdm_small": 482_346_884,
    "bk_sdm_tiny": 323_384_964,
    "instaflow": 859_520_964,
    "sd21": 865_910_724,
    "sdxl": 2_567_463_684,
}


def test_parameters_are_the_published() -> None:
    assert {name: sum(p.numel() for p in meta_unet(name).parameters()) for name in ARCHITECTURES} == PARAMETERS


def test_efficient_is_sd15_without_the_transformers_of_its_highest_resolution() -> None:
    """By name: surgery on a loaded SD v1.5 keeps every other weight."""
    whole, without = (dict(meta_unet(name).named_parameters()) for name in ("sd15", "efficient"))
    assert {k: v.shape for k, v in without.items()} == {
        k: v.shape for k, v in whole.items() if not k.startswith(("down_blocks.0.attentions", "up_blocks.3.attentions"))
    }


def test_an_architecture_is_a_copy_and_an_unknown_one_is_refused() -> None:
    architecture("sd15")["sample_size"] = 1
    assert architecture("sd15")["sample_size"] == 64
    assert isinstance(meta_unet("bk_sdm_tiny"), UNet2DConditionModel)
    with pytest.raises(ValueError, match="architecture 'sd3' is not known"):
        architecture("sd3")
