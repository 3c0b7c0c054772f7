"""FLOPs of published UNets from their architectures, against torch's own count and the published sizes."""

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clockwork.flops.published_unets import PUBLISHED_UNETS, rollouts
from clockwork.reports.unet_savings import savings_sheet


@pytest.mark.parametrize("name", ["SD v1.5", "DDPM, CIFAR-10", "consistency model, ImageNet"])
def test_a_pass_has_the_flops_that_torch_counts(name: str) -> None:
    published = PUBLISHED_UNETS[name]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        published.unet()(**published.call())
    parts = published.parts()
    assert parts.full_pass.full == counter.get_total_flops()
    # Of 8 steps, clock 4 has 2 full ones; the identity adaptor has no FLOPs of its own.
    with_clockwork, without = rollouts(parts, "clock4", 8)
    assert without == parts.full_pass * 8
    assert with_clockwork == parts.full_pass * 2 + parts.high_res * 6


def test_sd15_is_that_of_docs_flops() -> None:
    (line,) = savings_sheet(["SD v1.5"]).cells
    assert line[:4] == ("SD v1.5", "512²", "859.5", "0.803")
    shares = [re.search(r"\(−(.+)%\)", cell) for cell in line[4:]]
    half_4, half_8, quarter_4, quarter_8 = (float(share[1]) for share in shares if share is not None)
    assert half_4 == half_8 and quarter_4 == quarter_8 == pytest.approx(1.5 * half_4, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED_UNETS)
def test_every_unet_has_the_published_size(name: str) -> None:
    published = PUBLISHED_UNETS[name]
    parameters = sum(weight.numel() for weight in published.unet().parameters()) / 1e6
    assert parameters == pytest.approx(published.parameters, abs=0.06)
    (line,) = savings_sheet([name]).cells
    assert len(line) == 8
