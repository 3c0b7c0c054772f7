"""Training of the miniature's autoencoder, and the latents that it encodes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor

from clockwork.io.atomic import atomic_write
from clockwork.io.progress import progress_bar
from clockwork.miniature import models, scenes
from clockwork.miniature.training.module import MiniatureModule


class AutoencoderModule(MiniatureModule):
    """Trains the autoencoder, guided by a closed-form code: the whitened principal components of 2 × 2 patches.

    A small `AutoencoderKL` trained from random weights stays poor. Pulled towards the closed-form code first, with a
    weight that decreases during training, it converges within minutes. The code has unit variance by construction.

    Args:
        vae: The autoencoder.
        noise: Standard deviation of the latent noise.
        **optimisation: Arguments of `MiniatureModule`.
    """

    def __init__(self, vae: AutoencoderKL, noise: float = 0.05, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.vae, self.noise = vae, noise
        mean, whiten = principal_components(scenes.render_batch("validation", 0, 1000)[1], vae.config.latent_channels)
        self.register_buffer("mean", mean)
        self.register_buffer("whiten", whiten)

    def training_step(self, _: int) -> Tensor:
        """Computes reconstruction error, distance to the closed-form code, and error of the predicted variance."""
        images = self.scenes()[1]
        patches = F.pixel_unshuffle(images, 2)
        code = torch.einsum("kc,bchw->bkhw", self.whiten, patches - self.mean[:, None, None])
        posterior = self.vae.encode(images).latent_dist
        recon = self.vae.decode(posterior.mean + self.noise * torch.randn_like(code)).sample
        error = F.mse_loss(recon, images)
        code_error = F.mse_loss(posterior.mean, code)
        log_variance = torch.full_like(code, 2 * torch.tensor(self.noise).log().item())
        variance_error = F.mse_loss(posterior.logvar, log_variance)
        code_weight = 0.5 * max(0.02, 1 - 2 * self.global_step / self.hparams.steps)
        self.log_dict({"psnr": 10 * torch.log10(4 / error), "code_error": code_error}, prog_bar=True)
        return error + F.l1_loss(recon, images) + code_weight * code_error + 0.01 * variance_error


def principal_components(images: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Computes the principal components of 2 × 2 patches.

    Args:
        images: Images, `batch × 3 × height × width`.
        components: Number of components.

    Returns:
        The mean patch, `12`, and the whitening projection, `components × 12`.
    """
    patches = F.pixel_unshuffle(images, 2).movedim(1, -1).flatten(0, -2)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T.cov())
    return mean, (vectors[:, -components:] / values[-components:].sqrt()).T


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, count: int, file: Path, chunk: int = 64) -> Tensor:
    """Encodes the first training scenes once, because encoding costs more than a pass of the UNet.

    Args:
        vae: The trained autoencoder.
        count: Number of scenes.
        file: A `.npy` file for the latents; if it exists, it is read instead.
        chunk: Scenes per batch.

    Returns:
        The latents in half precision, `count × 4 × height × width`.
    """
    if not file.exists():
        latents = np.empty((count, 4, models.LATENT_SIZE, models.LATENT_SIZE), np.float16)
        for start in progress_bar(range(0, count, chunk), "encoding scenes"):
            size = min(chunk, count - start)
            posterior = vae.encode(scenes.render_batch("train", start, size)[1]).latent_dist
            latents[start : start + size] = posterior.mean.numpy()
        with atomic_write(file) as partial, partial.open("wb") as stream:
            np.save(stream, latents)
    return torch.from_numpy(np.load(file))
