"""The error of the UNet's guided output, which reaches the image: a loss beside that of the features at the cut."""

import copy

import torch
from torch import Tensor

from clockwork.metrics.similarity import distance
from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.sampling.sampler import Sampler
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.objectives.base import frozen
from clockwork.unet.split import SplitUNet


class GuidedOutput:
    """Runs the kept layers of the frozen UNet on estimates of `r_out`, in float32, and applies guidance.

    The skip connections are computed from the examples' latents and captions again, which take less memory.

    Args:
        sampler: The operating point. A UNet in half precision is copied to float32.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.teacher, self.guidance, self.split = sampler.teacher, sampler.guidance, split_in_float32(sampler)
        # Only two passes are combined by the scale; in a UNet that is conditioned on it, it changes the condition.
        self.scale = sampler.guidance if sampler.teacher.unet_calls_per_step(sampler.guidance) == 2 else 1.0

    def error(self, estimate: Tensor, target: Tensor, batch: AdaptorExample) -> Tensor:
        """Computes the root mean square error of the guided output, with a gradient for the estimate.

        Args:
            estimate: Estimates of `r_out` in float32, `batch × channels × height × width`.
            target: The teacher's `r_out`, of the same shape.
            batch: The examples, with latents; in complete groups, the negative half first.

        Returns:
            One number per image.
        """
        assert batch.latents is not None and batch.timestep is not None and batch.captions is not None
        with frozen(estimate.device):
            captions = list(batch.captions if self.scale == 1 else batch.captions[len(batch) // 2 :])
            conditions = self.teacher.conditions(captions, self.guidance, with_text_emb=False)
            condition = cfg_batch(*conditions).to(torch.float32)
            latents, t = batch.latents.float(), batch.timestep
            embedded = self.split.embed(latents, t, condition.prompt_embeds, **condition.unet_kwargs)
            high = self.split.high_in(embedded)
            output = self.split.high_out(target, high, embedded)
        with torch.autocast(estimate.device.type, enabled=False):
            return guided_distance(self.split.high_out(estimate, high, embedded) - output, self.scale)


def split_in_float32(sampler: Sampler) -> SplitUNet:
    """Returns the frozen UNet with its cut in float32, for losses whose gradients pass through it.

    Args:
        sampler: The operating point.

    Returns:
        The sampler's own UNet if it is in float32, else a copy, because small gradients vanish in half precision.
    """
    unet = sampler.split.unet
    return SplitUNet(unet if unet.dtype == torch.float32 else copy.deepcopy(unet).float(), sampler.split.cut)


def guided_distance(error: Tensor, guidance: float) -> Tensor:
    """Computes the root mean square of the error after guidance.

    Args:
        error: Errors of both halves of guidance, the negative half first, `2n × channels × height × width`. With
            guidance 1 or less there is no negative half: `n × channels × height × width`.
        guidance: Guidance scale.

    Returns:
        One number per image, `n`.
    """
    guided = error if guidance <= 1 else apply_guidance(error, guidance)
    return distance(guided, torch.zeros_like(guided))
