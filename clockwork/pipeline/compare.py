"""The same image generated without Clockwork and with it, with the time that each takes."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from clockwork.pipeline.enable import disabled, enabled_hook
from clockwork.pipeline.summary import Summary, summarise
from clockwork.teachers import Teacher


@dataclass(frozen=True)
class ComparedImages:
    """The images of one prompt and seed, without Clockwork and with it.

    Attributes:
        prompt: The prompt.
        seed: Seed of the initial noise.
        images: The image without Clockwork and the one with it, 8 bits, `2 × 3 × height × width`.
        seconds_without: Duration of the pipeline call without Clockwork, in seconds.
        seconds_with: Duration of the pipeline call with Clockwork, in seconds.
        summary: Steps and FLOPs of the call with Clockwork.
    """

    prompt: str
    seed: int
    images: Tensor
    seconds_without: float
    seconds_with: float
    summary: Summary

    def to_dict(self) -> dict[str, Any]:
        """Returns everything except the images as plain data, the summary's fields included."""
        values = {name: getattr(self, name) for name in ("prompt", "seed", "seconds_without", "seconds_with")}
        return {**values, **asdict(self.summary)}


def compare(teacher: Teacher, prompt: str, seed: int, call: Mapping[str, Any]) -> ComparedImages:
    """Generates an image with the teacher's pipeline twice, without Clockwork and with it.

    Args:
        teacher: A teacher. Clockwork must be enabled on its pipeline.
        prompt: The prompt.
        seed: Seed of the initial noise.
        call: Further arguments of the pipeline call.

    Returns:
        The two images and the duration of each call, which includes the text encoders but not the decoder, and not the
        loading of the adaptor's text embedder. On a GPU, one call of each kind runs before the timed one.

    Raises:
        UserError: If Clockwork is not enabled on the pipeline.
    """
    prompts = enabled_hook(teacher.pipe).prompts
    if prompts is not None:
        prompts.openclip.to(teacher.device).encode_text([""])  # loads the model, which a first call would count
    with disabled(teacher.pipe):
        without, seconds_without = _timed_latents(teacher.pipe, prompt, seed, call)
    with_clockwork, seconds_with = _timed_latents(teacher.pipe, prompt, seed, call)
    # Not decoded by the pipeline: SDXL's autoencoder is in float32 beside a UNet in float16, and the pipeline does not
    # cast between them.
    images = teacher.decode(torch.cat([without, with_clockwork]))
    return ComparedImages(prompt, seed, images, seconds_without, seconds_with, summarise(teacher.pipe))


def _timed_latents(pipe: Any, prompt: str, seed: int, call: Mapping[str, Any]) -> tuple[Tensor, float]:
    """Returns the latents, `1 × channels × height × width`, and the duration of the call in seconds."""
    for _ in range(2 if pipe.device.type == "cuda" else 1):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        latents = pipe(prompt, generator=generator, output_type="latent", **call).images
        latents.cpu()  # waits for the device
        seconds = time.perf_counter() - start
    return latents, seconds
