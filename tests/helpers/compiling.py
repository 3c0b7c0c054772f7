"""A backend of `torch.compile` that runs graphs as they were traced and counts them, and a pipeline quick to trace."""

from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from helpers.pipelines import control, generate, make
from torch import Tensor

import clockwork

PROMPTS = ["a red circle", "a green star", "two blue squares", "a ring", "a grey moon", "a white cross"]


@dataclass
class Backend:
    """Runs a graph as it is, and counts them. With `pool`, all results are overwritten when any graph runs again."""

    pool: bool = False
    graphs: list[int] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs.append(len(graph.graph.nodes))

        def run(*arguments: Any) -> Any:
            for buffer in self.buffers:  # before the arguments are read: they may not be results of a graph, either
                buffer.fill_(torch.nan)
            results = [result.clone() for result in graph.forward(*arguments)]
            self.buffers += results
            return results

        return run if self.pool else graph.forward


def small_unet(**config: Any) -> UNet2DConditionModel:
    """A UNet of two levels: a graph takes a second."""
    torch.manual_seed(0)
    small: dict[str, Any] = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
    }
    return UNet2DConditionModel(**small | config).eval().requires_grad_(False)


def small_pipeline(name: str = "StableDiffusionPipeline", **config: Any) -> tuple[Any, dict[str, Any]]:
    """One of Stable Diffusion's, as `make` has them, with a UNet of two levels."""
    pipe, arguments = make(name)
    pipe.unet = small_unet(**config)
    if "ControlNet" in name:
        pipe.controlnet = control(pipe.unet, 1)
    return pipe, arguments


def both_ways(pipe: Any, backend: Backend, call: dict[str, Any], **options: Any) -> tuple[Tensor, Tensor]:
    """The pipeline's latents with the uncompiled and the compiled steps."""
    options = {"schedule": "clock2", **options}
    clockwork.enable(pipe, **options)
    eager = generate(pipe, **call)
    clockwork.enable(pipe, compile={"backend": backend}, **options)
    return eager, generate(pipe, **call)
