"""Trains the miniature's parts from nothing: autoencoder, small CLIP, text encoder with UNet.

Every batch is a function of the step and the process, so that a resumed run sees what an uninterrupted one
would have seen, and no process sees another's scenes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import CLIPTextModel, CLIPTokenizer

from clockwork.io.atomic import atomic_write
from clockwork.miniature import models, scenes


class Part(LightningModule):
    """What the three trainings share: batches by step, AdamW with warm-up and cosine decay to nothing."""

    def __init__(self, batch_size: int, learning_rate: float, steps: int) -> None:
        super().__init__()
        self.save_hyperparameters("batch_size", "learning_rate", "steps")

    def train_dataloader(self) -> DataLoader[int]:
        return DataLoader(range(self.hparams.steps), batch_size=None)  # type: ignore[arg-type]

    def on_train_start(self) -> None:
        # Other noise in every process, and other noise after a resume than at the start.
        torch.manual_seed(torch.initial_seed() + 1_000_000 * self.global_rank + self.global_step)

    def scenes(self, split: str = "train") -> tuple[list[str], Tensor]:
        size = self.hparams.batch_size
        number = self.global_step * self.trainer.world_size + self.global_rank
        captions, images = scenes.batch(split, number * size, size)
        return captions, images.to(self.device)

    def configure_optimizers(self) -> dict[str, Any]:
        rate, steps = self.hparams.learning_rate, self.hparams.steps
        optimizer = torch.optim.AdamW(self.parameters(), lr=rate, weight_decay=0.01, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.03, cycle_momentum=False)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Autoencoder(Part):
    """An autoencoder whose code starts as the whitened principal components of 2 × 2 patches.

    Trained from scratch a small AutoencoderKL stays poor; led to a closed-form code first, and let go of it as
    the training goes on, encoder and decoder need minutes. The code's variance is one by construction.
    """

    def __init__(self, vae: AutoencoderKL, noise: float = 0.05, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.vae, self.noise = vae, noise
        mean, whiten = principal_components(scenes.batch("validation", 0, 1000)[1], vae.config.latent_channels)
        self.register_buffer("mean", mean)
        self.register_buffer("whiten", whiten)

    def training_step(self, _: int) -> Tensor:
        images = self.scenes()[1]
        code = F.pixel_unshuffle(images, 2)
        code = torch.einsum("kc,bchw->bkhw", self.whiten, code - self.mean[:, None, None])
        posterior = self.vae.encode(images).latent_dist
        recon = self.vae.decode(posterior.mean + self.noise * torch.randn_like(code)).sample
        error = F.mse_loss(recon, images)
        lead = F.mse_loss(posterior.mean, code)
        spread = F.mse_loss(posterior.logvar, torch.full_like(code, 2 * torch.tensor(self.noise).log().item()))
        hold = max(0.02, 1 - 2 * self.global_step / self.hparams.steps)
        self.log_dict({"psnr": 10 * torch.log10(4 / error), "lead": lead}, prog_bar=True)
        return error + F.l1_loss(recon, images) + 0.5 * hold * lead + 0.01 * spread


def principal_components(images: Tensor, components: int) -> tuple[Tensor, Tensor]:
    """Mean `(12,)` and whitening projection `(components, 12)` of the images' 2 × 2 patches."""
    patches = F.pixel_unshuffle(images, 2).movedim(1, -1).flatten(0, -2)
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh((patches - mean).T.cov())
    return mean, (vectors[:, -components:] / values[-components:].sqrt()).T


class Contrast(Part):
    """The small CLIP: pictures and captions to one space (Radford et al. 2021)."""

    def __init__(self, clip: Any, words: CLIPTokenizer, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.clip, self.words = clip, words

    def training_step(self, _: int) -> Tensor:
        captions, images = self.scenes()
        seen = F.normalize(self.clip.encode_image(enlarged(images)), dim=-1)
        read = F.normalize(self.clip.encode_text(tokens(self.words, captions).to(self.device)), dim=-1)
        logits = self.clip.logit_scale.exp().clamp(max=100) * seen @ read.T
        truth = torch.arange(len(captions), device=self.device)
        right = (logits.argmax(1) == truth).float().mean()
        self.log("retrieval", right, prog_bar=True)
        return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def enlarged(images: Tensor) -> Tensor:
    """Scenes at the size the small CLIP takes, as `OpenCLIP.encode_image` makes them."""
    return F.interpolate(images, scale_factor=2, mode="bicubic", antialias=True).clamp(-1, 1)


@torch.no_grad()
def encode_scenes(vae: AutoencoderKL, count: int, file: Path, chunk: int = 64) -> Tensor:
    """The first `count` training scenes' latents, kept in `file`: encoding costs more than the UNet's own pass."""
    if not file.exists():
        latents = np.empty((count, 4, models.LATENT_SIZE, models.LATENT_SIZE), np.float16)
        for start in tqdm(range(0, count, chunk), "encoding scenes"):
            size = min(chunk, count - start)
            posterior = vae.encode(scenes.batch("train", start, size)[1]).latent_dist
            latents[start : start + size] = posterior.mean.numpy()
        with atomic_write(file) as partial, partial.open("wb") as stream:
            np.save(stream, latents)
    return torch.from_numpy(np.load(file))


def tokens(words: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids `batch × model_max_length`, padded and cut as Stable Diffusion's pipeline does."""
    batch = words(captions, padding="max_length", truncation=True, return_tensors="pt")
    return batch.input_ids


class Diffusion(Part):
    """UNet and text encoder, trained together on v with min-SNR weights (Hang et al. 2023).

    With `offset` 1 the weights are min(SNR + 1, gamma) of the clean latent's error, v's own (Salimans & Ho 2022) but
    for the clamp: min-SNR alone hardly weighs the noisiest timesteps, where a picture's layout is decided.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        text: CLIPTextModel,
        words: CLIPTokenizer,
        latents: Tensor,
        noise_schedule: DDIMScheduler,
        ema: float = 0.999,
        dropout: float = 0.1,
        gamma: float = 5.0,
        offset: float = 0.0,
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        self.unet, self.text = unet, text
        self.latents = latents  # scenes × 4 × height × width: the training scenes', in their order
        self.words, self.noise_schedule, self.dropout = words, noise_schedule, dropout
        self.gamma, self.offset = gamma, offset
        self.average = torch.optim.swa_utils.AveragedModel(
            nn.ModuleList([unet, text]), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        ).requires_grad_(False)

    def training_step(self, _: int) -> Tensor:
        size = self.hparams.batch_size
        number = self.global_step * self.trainer.world_size + self.global_rank
        index = [i % len(self.latents) for i in range(number * size, (number + 1) * size)]
        dropped = (torch.rand(size) < self.dropout).tolist()
        read = ["" if d else scenes.scene("train", i).caption for i, d in zip(index, dropped, strict=True)]
        clean = self.latents[index].to(self.device).float()
        noise = torch.randn_like(clean)
        t = torch.randint(self.noise_schedule.config.num_train_timesteps, (len(clean),), device=self.device)
        noisy = self.noise_schedule.add_noise(clean, noise, t)
        text = self.text(tokens(self.words, read).to(self.device)).last_hidden_state
        velocity = self.unet(noisy, t, text).sample
        error = (velocity - self.noise_schedule.get_velocity(clean, noise, t)).square().mean((1, 2, 3))
        alpha = self.noise_schedule.alphas_cumprod.to(self.device)[t]
        snr = alpha / (1 - alpha)
        loss = (error * (snr + self.offset).clamp(max=self.gamma) / (snr + 1)).mean()
        self.log_dict({"loss": loss, "error": error.mean()}, prog_bar=True)
        return loss

    def on_before_zero_grad(self, _: torch.optim.Optimizer) -> None:
        if self.global_step > 0:
            self.average.update_parameters(nn.ModuleList([self.unet, self.text]))

    def averaged(self) -> tuple[UNet2DConditionModel, CLIPTextModel]:
        both: Any = self.average.module
        return both[0], both[1]
