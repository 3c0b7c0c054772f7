"""FLOPs of an operating point, counted on `meta` from the architectures alone."""

import copy

import torch

from clockwork.adaptors import Adaptor
from clockwork.metrics.flops import Flops, count_flops
from clockwork.schedule import Schedule
from clockwork.setup import Setup, meta_call
from clockwork.split import SplitUNet


def pass_flops(
    split: SplitUNet, latent_shape: tuple[int, int, int], adaptor: Adaptor | None = None, tokens: int = 77
) -> tuple[Flops, Flops]:
    """Of one full and one adaptor pass at batch 1; UNet and adaptor are on `meta`, and so is all that runs here."""
    call = meta_call(split.unet, latent_shape, tokens)
    full = count_flops(lambda: split(**call))
    if adaptor is None:
        return full, Flops()
    e = split.embed(**call)
    r_out = split.low(split.high_in(e), e)
    pooled = torch.empty(1, adaptor.widths.text_emb, device="meta") if adaptor.widths.text_emb else None

    def adaptor_pass() -> None:
        e = split.embed(**call)
        high = split.high_in(e)
        split.high_out(adaptor(high.r_in, r_out, e.t_emb, pooled), high, e)

    return full, count_flops(adaptor_pass)


def rollout_flops(full: Flops, adaptor: Flops, schedule: Schedule, calls: int, guided: bool) -> Flops:
    """Of one image: the full steps that really run, and the adaptor steps, twice each with guidance."""
    whole = schedule.full_steps(calls)
    return (full * whole + adaptor * (calls - whole)) * (2 if guided else 1)


def step_flops(setup: Setup) -> tuple[Flops, Flops]:
    """Of one full and one adaptor step at batch 1, without guidance's second pass."""
    with torch.device("meta"):
        unet = type(setup.split.unet).from_config(setup.split.unet.config)
        adaptor = None if setup.adaptor is None else copy.deepcopy(setup.adaptor).to("meta")
    tokens = setup.teacher.pipe.tokenizer.model_max_length
    return pass_flops(SplitUNet(unet, setup.split.cut), setup.teacher.latent_shape, adaptor, tokens)


def image_flops(setup: Setup) -> Flops:
    """Of one image at a setup's operating point."""
    return rollout_flops(*step_flops(setup), setup.schedule, setup.calls, setup.guidance != 1)
