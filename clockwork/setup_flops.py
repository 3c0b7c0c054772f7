"""FLOPs of an operating point, counted on `meta` from the architectures alone."""

import copy

import torch

from clockwork.metrics.flops import Flops, count_flops
from clockwork.setup import Setup
from clockwork.split import SplitUNet


def step_flops(setup: Setup) -> tuple[Flops, Flops]:
    """Of one full and one adaptor step at batch 1, without guidance's second pass."""
    with torch.device("meta"):
        unet = type(setup.split.unet).from_config(setup.split.unet.config)
        adaptor = None if setup.adaptor is None else copy.deepcopy(setup.adaptor).to("meta")
        split = SplitUNet(unet, setup.split.cut)
        sample = torch.empty(1, *setup.teacher.latent_shape)
        text = torch.empty(1, setup.teacher.pipe.tokenizer.model_max_length, unet.config.cross_attention_dim)
        t = torch.tensor(1)
        e = split.embed(sample, t, text)
        high = split.high_in(e)
        full = count_flops(lambda: split(sample, t, text))
        if adaptor is None:
            return full, Flops()
        r_out = split.low(high, e)
        pooled = torch.empty(1, adaptor.widths.text_emb) if adaptor.widths.text_emb else None

        def adaptor_step() -> None:
            e = split.embed(sample, t, text)
            high = split.high_in(e)
            split.high_out(adaptor(high.r_in, r_out, e.t_emb, pooled), high, e)

        return full, count_flops(adaptor_step)


def image_flops(setup: Setup) -> Flops:
    """Of one image: the full steps that really run, and the adaptor steps, twice each with guidance."""
    full, adaptor = step_flops(setup)
    full_steps = setup.schedule.full_steps(setup.calls)
    return (full * full_steps + adaptor * (setup.calls - full_steps)) * (2 if setup.guidance != 1 else 1)
