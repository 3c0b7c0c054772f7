"""Decoding latents and encoding images with a teacher's autoencoder, a few images at a time."""

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from clockwork.errors import UserError

MAX_PIXELS = 4 * 512**2  # per slice: decoding four images of 512 × 512 takes 2 GiB in half precision


@torch.no_grad()
def decode_latents(vae: AutoencoderKL, latents: Tensor, scale: int, description: str) -> Tensor:
    """Decodes latents in slices, so that a batch of any size fits in memory.

    Args:
        vae: The autoencoder.
        latents: Latents, `batch × channels × height × width`.
        scale: Side of an image divided by the side of its latent.
        description: What an image is called in an error message.

    Returns:
        8-bit images on the CPU, `batch × 3 × scale height × scale width`.

    Raises:
        UserError: If an image has values that are not finite.
    """
    height, width = latents.shape[-2:]
    images = []
    for latent_slice in latents.split(slice_size(scale * height, scale * width)):
        pixels = vae.decode(latent_slice.to(vae.dtype) / vae.config.scaling_factor).sample
        require_finite(pixels, description)
        images.append(((pixels.float() / 2 + 0.5).clamp(0, 1) * 255).round().to("cpu", torch.uint8))
    return torch.cat(images)


@torch.no_grad()
def encode_images(vae: AutoencoderKL, images: Tensor) -> Tensor:
    """Encodes images in slices, so that a batch of any size fits in memory.

    Args:
        vae: The autoencoder.
        images: 8-bit images on any device, `batch × 3 × height × width`.

    Returns:
        Latents on the autoencoder's device in float32, `batch × channels × latent height × latent width`: the mean of
        the encoder's distribution.
    """
    latents = []
    for image_slice in images.split(slice_size(*images.shape[-2:])):
        pixels = image_slice.to(vae.device, vae.dtype) / 127.5 - 1
        latents.append(vae.encode(pixels).latent_dist.mean.float() * vae.config.scaling_factor)
    return torch.cat(latents)


def slice_size(height: int, width: int) -> int:
    """Returns how many images the autoencoder processes at once.

    Args:
        height: Height of the images in pixels.
        width: Width of the images in pixels.
    """
    return max(1, MAX_PIXELS // (height * width))


def require_finite(values: Tensor, description: str) -> None:
    """Checks that a tensor holds neither NaN nor infinity.

    Args:
        values: Any tensor.
        description: What the tensor is called in the error message.

    Raises:
        UserError: If it does.
    """
    if not bool(values.isfinite().all()):
        raise UserError(
            f"{description} has values that are not finite: pass precision=float32 or bfloat16, or check the weights"
        )
