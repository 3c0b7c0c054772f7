"""What a pipeline generates, and how long that takes: the images, or the frames of videos."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clockwork.metrics.latency import measure_latency
from clockwork.pipeline.menu_inputs import MenuInputs
from clockwork.pipeline.parts import get_unet
from clockwork.teachers.autoencoder import decode_latents, require_finite
from clockwork.unet.models import unet_kind

DESCRIPTION = "an image of the pipeline"


@dataclass(frozen=True)
class Measured:
    """What a pipeline generates.

    Attributes:
        latents: Latents in float32 on the CPU, one per input.
        images: The images, 8 bits, `inputs × 3 × height × width`; of videos, `inputs × frames × 3 × height × width`.
        milliseconds: Median duration of a call for one input, without the decoder.
    """

    latents: Tensor
    images: Tensor
    milliseconds: float

    def relative_l2(self, reference: "Measured") -> float:
        """Relative L2 distance of the latents to others, mean over the inputs.

        Args:
            reference: The others.
        """
        difference = self.latents - reference.latents
        return float((difference.flatten(1).norm(dim=1) / reference.latents.flatten(1).norm(dim=1)).mean())

    def psnr(self, reference: "Measured") -> float:
        """Mean PSNR of the images, or of all frames, to others, in dB; equal ones count as 100 dB.

        Args:
            reference: The others.
        """
        # As `clockwork.metrics.similarity.PSNR`, without torchmetrics, which the core does not depend on.
        mean_square = (self.images.float() - reference.images.float()).square().flatten(-3).mean(-1)
        return float((10 * torch.log10(255**2 / mean_square.clamp(min=255**2 / 1e10))).mean())


def measure(pipe: Any, inputs: MenuInputs, seed: int, runs: int) -> Measured:
    """Generates from the inputs and times a call for the first of them.

    Args:
        pipe: The pipeline.
        inputs: Prompts or images.
        seed: Seed of the noise.
        runs: How many calls are timed.
    """
    with torch.no_grad():
        one = inputs[:1].arguments(pipe, seed)
        latency = measure_latency(lambda: pipe(**one), pipe.unet.device, runs, warm_up=1)
        result = pipe(**inputs.arguments(pipe, seed))
        latents = result.frames if hasattr(result, "frames") else result.images
        images = decode(pipe, latents)
    return Measured(latents.float().cpu(), images, latency.latency_median_ms)


def decode(pipe: Any, latents: Tensor) -> Tensor:
    """Decodes latents, those of videos as the pipeline does.

    Args:
        pipe: The pipeline.
        latents: The latents of its call.

    Returns:
        8-bit images on the CPU, `batch × 3 × height × width`; of videos, `batch × frames × 3 × height × width`.
    """
    axis = unet_kind(get_unet(pipe)).frames_axis
    if axis is None:
        with _upcast(pipe.vae):
            return decode_latents(pipe.vae, latents, int(pipe.vae_scale_factor), DESCRIPTION)
    has_frames = "num_frames" in inspect.signature(pipe.decode_latents).parameters  # of a decoder over the frames
    num_frames = {"num_frames": latents.shape[axis]} if has_frames else {}
    videos = []
    for video in latents.split(1):
        pixels = pipe.decode_latents(video, **num_frames).transpose(1, 2)
        require_finite(pixels, DESCRIPTION)
        videos.append(((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8))
    return torch.cat(videos)


@contextmanager
def _upcast(vae: Any) -> Iterator[None]:
    """Runs an autoencoder in float32 that overflows in float16, as SDXL's pipelines do."""
    if vae.dtype != torch.float16 or not vae.config.get("force_upcast", False):
        yield
        return
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(torch.float16)
