"""FLOPs of an operating point, counted from the architectures alone."""

import torch

from clockwork import cost
from clockwork.metrics.flops import Flops
from clockwork.setup import Setup


def step_flops(setup: Setup) -> tuple[Flops, Flops]:
    """Of one full and one adaptor step at batch 1, without guidance's second pass."""
    tokens = (setup.teacher.pipe.tokenizer.model_max_length, setup.split.unet.config.cross_attention_dim)
    with torch.device("meta"):
        call = {
            "sample": torch.empty(1, *setup.teacher.latent_shape),
            "timestep": torch.tensor(1),
            "encoder_hidden_states": torch.empty(1, *tokens),
        }
    return cost.step_flops(setup.split, setup.adaptor, call)


def image_flops(setup: Setup) -> Flops:
    """Of one image: the full steps that really run, and the adaptor steps, twice each with guidance."""
    full, adaptor = step_flops(setup)
    full_steps = setup.schedule.full_steps(setup.calls)
    return (full * full_steps + adaptor * (setup.calls - full_steps)) * (2 if setup.guidance != 1 else 1)
