"""The stages of `make miniature`, each resumable and passed over once its result is there."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from pytorch_lightning.loggers import CSVLogger
from transformers import CLIPTextModel

from clockwork.io.atomic import atomic_folder
from clockwork.miniature import WEIGHTS, models
from clockwork.miniature.training.parts import Autoencoder, Contrast, Diffusion, Part, encode_scenes
from clockwork.training.fit import fit

FAST = {"memory_format": torch.channels_last}


@dataclass(frozen=True)
class Recipe:
    folder: Path

    def autoencoder(self, optimisation: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
        if not (self.folder / "vae").is_dir():
            vae = models.autoencoder().to(**FAST)
            if self._train("autoencoder", Autoencoder(vae, **optimisation), trainer):
                with atomic_folder(self.folder / "vae") as partial:
                    vae.save_pretrained(partial)

    def clip(self, optimisation: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
        if not (self.folder / "clip").is_dir():
            words = models.tokenizer(self.folder / "tokenizer")
            clip = open_clip.model.CLIP(**models.clip_config(words))
            if self._train("small_clip", Contrast(clip, words, **optimisation), trainer):
                with atomic_folder(self.folder / "clip") as partial:
                    models.save_clip(partial, clip, words)

    def teacher(
        self,
        name: str,
        optimisation: Mapping[str, Any],
        scenes: int,
        trainer: Mapping[str, Any],
        start: str | None = None,
    ) -> None:
        """A UNet with its text encoder; with `start`, they begin with that teacher's weights. Where the UNet is of
        another form than the start's, the text encoder stays as it is, so that one serves both."""
        if (self.folder / name).is_dir():
            return
        words = models.tokenizer(self.folder / "tokenizer")
        unet, text = models.unet(top_attention=name == "miniature_sd").to(**FAST), models.text_encoder(words)
        if start is not None:
            begin_as(unet, UNet2DConditionModel.from_pretrained(self.folder / start, subfolder="unet"))
            text = CLIPTextModel.from_pretrained(self.folder / start / "text_encoder").train()
            text.requires_grad_(name != "miniature_sd")
        vae = AutoencoderKL.from_pretrained(self.folder / "vae").eval()
        latents = encode_scenes(vae.to(**FAST), scenes, self.folder / "latents.npy")
        part = Diffusion(unet, text, words, latents, models.noise_schedule(), **optimisation)
        if self._train(name, part, trainer):
            with atomic_folder(self.folder / name) as partial:
                models.save_pipeline(partial, part.averaged(), vae, words)

    def ship(self) -> None:
        """Puts the result where the package looks for it."""
        for name in ("miniature", "miniature_sd", "clip"):
            shutil.copytree(self.folder / name, WEIGHTS / name, dirs_exist_ok=True)

    def _train(self, name: str, part: Part, trainer: Mapping[str, Any]) -> bool:
        """Whether this is the process that writes the result."""
        output = self.folder / "runs" / name
        fitted = fit(
            part,
            output,
            every_n_steps=250,
            max_steps=part.hparams["steps"],
            gradient_clip_val=1.0,
            log_every_n_steps=25,
            logger=CSVLogger(output, name="log", version=""),
            **trainer,
        )
        return fitted.is_global_zero


def begin_as(unet: UNet2DConditionModel, begun: UNet2DConditionModel) -> None:
    """Takes over every weight of the same name and shape; attention that is new starts as doing nothing."""
    weights = begun.state_dict()
    missing, unexpected = unet.load_state_dict(weights, strict=False)
    assert not unexpected, unexpected
    new = {name.removesuffix(".proj_out.weight") for name in missing if name.endswith(".proj_out.weight")}
    for module in new:
        torch.nn.init.zeros_(unet.get_submodule(module).proj_out.weight)
        torch.nn.init.zeros_(unet.get_submodule(module).proj_out.bias)
