"""Training of the miniature's UNet and text encoder."""

from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from clockwork.miniature import scenes
from clockwork.miniature.training.module import MiniatureModule, tokens


class DiffusionModule(MiniatureModule):
    """Trains UNet and text encoder together on v-prediction with min-SNR weights (Hang et al. 2023).

    With `offset=1` the error of the clean latent is weighted by `min(SNR + 1, gamma)`, which is the unweighted error of
    v (Salimans & Ho 2022) up to the clamp. Plain min-SNR gives little weight to the noisiest timesteps, which decide
    the layout of the image.

    Args:
        unet: The UNet.
        text: The text encoder.
        words: Its tokenizer.
        latents: Latents of the first training scenes, `scenes × 4 × height × width`.
        noise_schedule: The noise schedule, with v-prediction.
        ema: Decay of the exponential moving average of the weights.
        dropout: Probability of an empty caption, for classifier-free guidance.
        gamma: Upper limit of the weights.
        offset: Added to the SNR before the clamp.
        **optimisation: Arguments of `MiniatureModule`.
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
        self.words, self.latents, self.noise_schedule, self.dropout = words, latents, noise_schedule, dropout
        self.gamma, self.offset = gamma, offset
        self.average = torch.optim.swa_utils.AveragedModel(
            nn.ModuleList([unet, text]), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(ema)
        ).requires_grad_(False)

    def training_step(self, _: int) -> Tensor:
        """Computes the weighted error of v at random timesteps."""
        captions, clean = self._batch()
        noise = torch.randn_like(clean)
        t = torch.randint(self.noise_schedule.config.num_train_timesteps, (len(clean),), device=self.device)
        noisy = self.noise_schedule.add_noise(clean, noise, t)
        text = self.text(tokens(self.words, captions).to(self.device)).last_hidden_state
        velocity = self.unet(noisy, t, text).sample
        error = (velocity - self.noise_schedule.get_velocity(clean, noise, t)).square().mean((1, 2, 3))
        alpha = self.noise_schedule.alphas_cumprod.to(self.device)[t]
        snr = alpha / (1 - alpha)
        loss = (error * (snr + self.offset).clamp(max=self.gamma) / (snr + 1)).mean()
        self.log_dict({"loss": loss, "error": error.mean()}, prog_bar=True)
        return loss

    def _batch(self) -> tuple[list[str], Tensor]:
        """Returns captions, some of them replaced by the empty one, and latents of this step and process."""
        size = self.hparams.batch_size
        indices = [i % len(self.latents) for i in range(self.first_scene, self.first_scene + size)]
        dropped = (torch.rand(size) < self.dropout).tolist()
        captions = ["" if d else scenes.sample_scene("train", i).caption for i, d in zip(indices, dropped, strict=True)]
        return captions, self.latents[indices].to(self.device).float()

    def on_before_zero_grad(self, _: torch.optim.Optimizer) -> None:
        """Updates the moving average after each optimiser step."""
        if self.global_step > 0:
            self.average.update_parameters(nn.ModuleList([self.unet, self.text]))

    def averaged(self) -> tuple[UNet2DConditionModel, CLIPTextModel]:
        """Returns the moving averages of UNet and text encoder."""
        modules: Any = self.average.module
        return modules[0], modules[1]
