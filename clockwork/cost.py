"""FLOPs of an operating point, counted on `meta` from the architectures alone."""

import copy

import torch

from clockwork.adaptors import Adaptor
from clockwork.metrics.flops import Flops, count_flops
from clockwork.schedule import Schedule
from clockwork.setup import Setup, meta_call
from clockwork.split import SplitUNet


def full_pass(split: SplitUNet, latent_shape: tuple[int, int, int], tokens: int = 77) -> Flops:
    """Of one full pass at batch 1; the UNet is on `meta`, and so is all that runs here."""
    call = meta_call(split.unet, latent_shape, tokens)
    return count_flops(lambda: split(**call))


def adaptor_pass(split: SplitUNet, adaptor: Adaptor, latent_shape: tuple[int, int, int], tokens: int = 77) -> Flops:
    """The same with the adaptor, on `meta` too, in the low-res path's place."""
    call = meta_call(split.unet, latent_shape, tokens)
    e = split.embed(**call)
    r_out = split.low(split.high_in(e), e)
    pooled = torch.empty(1, adaptor.widths.text_emb, device="meta") if adaptor.widths.text_emb else None

    def run() -> None:
        e = split.embed(**call)
        high = split.high_in(e)
        split.high_out(adaptor(high.r_in, r_out, e.t_emb, pooled), high, e)

    return count_flops(run)


def rollout_flops(full: Flops, adaptor: Flops, schedule: Schedule, calls: int, guided: bool) -> Flops:
    """Of one image: the full steps that really run, and the adaptor steps, twice each with guidance."""
    whole = schedule.full_steps(calls)
    return (full * whole + adaptor * (calls - whole)) * (2 if guided else 1)


def step_flops(setup: Setup) -> tuple[Flops, Flops]:
    """Of one full and one adaptor step at batch 1, without guidance's second pass."""
    with torch.device("meta"):
        unet = type(setup.split.unet).from_config(setup.split.unet.config)
        adaptor = None if setup.adaptor is None else copy.deepcopy(setup.adaptor).to("meta")
    split, latent = SplitUNet(unet, setup.split.cut), setup.teacher.latent_shape
    tokens = setup.teacher.pipe.tokenizer.model_max_length
    full = full_pass(split, latent, tokens)
    return full, Flops() if adaptor is None else adaptor_pass(split, adaptor, latent, tokens)


def image_flops(setup: Setup) -> Flops:
    """Of one image at a setup's operating point."""
    return rollout_flops(*step_flops(setup), setup.schedule, setup.calls, setup.teacher.passes(setup.guidance) == 2)
