"""The same picture without and with Clockwork."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from clockwork.pipeline.enable import disabled
from clockwork.pipeline.summary import Summary, summarise
from clockwork.teachers import Teacher


@dataclass(frozen=True)
class ComparedImages:
    """One prompt and seed, generated without Clockwork and with it."""

    prompt: str
    seed: int
    pictures: Tensor  # 2 × 3 × height × width, 8 bits: without, with
    seconds_without: float
    seconds_with: float
    summary: Summary

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, as plain data."""
        values = {name: getattr(self, name) for name in ("prompt", "seed", "seconds_without", "seconds_with")}
        return {**values, **asdict(self.summary)}


def compare(teacher: Teacher, prompt: str, seed: int, call: Mapping[str, Any]) -> ComparedImages:
    """Generates an image by the teacher's pipeline twice, without Clockwork and with it.

    Args:
        teacher: Its pipeline has Clockwork enabled.
        prompt: The text.
        seed: The starting noise's.
        call: Further arguments of the pipeline.

    Returns:
        The two images, and the seconds that each way took, text encoders included and decoder not. On a GPU each runs
        once before it is timed.
    """
    with disabled(teacher.pipe):
        without, seconds_without = _timed(teacher.pipe, prompt, seed, call)
    clocked, seconds_with = _timed(teacher.pipe, prompt, seed, call)
    # Not by the pipeline: SDXL's autoencoder is in float32 beside a UNet in float16, and it casts nothing between them.
    pictures = teacher.decode(torch.cat([without, clocked]))
    return ComparedImages(prompt, seed, pictures, seconds_without, seconds_with, summarise(teacher.pipe))


def _timed(pipe: Any, prompt: str, seed: int, call: Mapping[str, Any]) -> tuple[Tensor, float]:
    """The latents, `1 × channels × height × width`."""
    for _ in range(2 if pipe.device.type == "cuda" else 1):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        latents = pipe(prompt, generator=generator, output_type="latent", **call).images
        latents.cpu()  # waits for the device
        seconds = time.perf_counter() - start
    return latents, seconds
