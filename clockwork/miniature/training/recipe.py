"""The stages of `make miniature`. Each can be resumed, and is skipped if its result exists."""

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

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_folder
from clockwork.miniature import WEIGHTS, models
from clockwork.miniature.training.autoencoder import AutoencoderModule, encode_scenes
from clockwork.miniature.training.clip import CLIPModule
from clockwork.miniature.training.diffusion import DiffusionModule
from clockwork.miniature.training.module import MiniatureModule
from clockwork.training.fit import fit

FAST = {"memory_format": torch.channels_last}  # the faster layout for convolutions


@dataclass(frozen=True)
class Recipe:
    """The stages that train the miniature.

    Every stage takes `optimisation`, the arguments of its training module, and `trainer`, those of Lightning's Trainer.

    Attributes:
        folder: Folder of all results; each stage writes a folder in it.
    """

    folder: Path

    def autoencoder(self, optimisation: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
        """Trains the autoencoder and saves it to `vae`.

        Args:
            optimisation: Arguments of `AutoencoderModule`.
            trainer: Arguments of Lightning's Trainer.
        """
        if not (self.folder / "vae").is_dir():
            vae = models.make_autoencoder().to(**FAST)
            if self._train("autoencoder", AutoencoderModule(vae, **optimisation), trainer):
                with atomic_folder(self.folder / "vae") as partial:
                    vae.save_pretrained(partial)

    def clip(self, optimisation: Mapping[str, Any], trainer: Mapping[str, Any]) -> None:
        """Trains the small CLIP and saves it to `clip`.

        Args:
            optimisation: Arguments of `CLIPModule`.
            trainer: Arguments of Lightning's Trainer.
        """
        if not (self.folder / "clip").is_dir():
            tokenizer = models.make_tokenizer(self.folder / "tokenizer")
            clip = open_clip.model.CLIP(**models.clip_config(tokenizer))
            if self._train("small_clip", CLIPModule(clip, tokenizer, **optimisation), trainer):
                with atomic_folder(self.folder / "clip") as partial:
                    models.save_clip(partial, clip, tokenizer)

    def teacher(
        self,
        name: str,
        optimisation: Mapping[str, Any],
        scenes: int,
        trainer: Mapping[str, Any],
        start: str | None = None,
    ) -> None:
        """Trains a UNet and its text encoder, and saves them as a pipeline. Needs the results of `autoencoder`.

        Args:
            name: Name of the pipeline's folder. The UNet of `miniature_sd` has attention at the highest resolution; its
                text encoder stays fixed if there is a `start`, so that both teachers share it.
            optimisation: Arguments of `DiffusionModule`.
            scenes: Number of training scenes.
            trainer: Arguments of Lightning's Trainer.
            start: Folder of the pipeline whose weights initialise UNet and text encoder, if any.
        """
        if (self.folder / name).is_dir():
            return
        self._require("vae", *([] if start is None else [start]))
        tokenizer = models.make_tokenizer(self.folder / "tokenizer")
        unet = models.make_unet(top_attention=name == "miniature_sd").to(**FAST)
        text = models.make_text_encoder(tokenizer)
        if start is not None:
            load_common_weights(unet, UNet2DConditionModel.from_pretrained(self.folder / start, subfolder="unet"))
            text = CLIPTextModel.from_pretrained(self.folder / start / "text_encoder").train()
            text.requires_grad_(name != "miniature_sd")
        vae = AutoencoderKL.from_pretrained(self.folder / "vae").eval()
        latents = encode_scenes(vae.to(**FAST), scenes, self.folder / "latents.npy")
        module = DiffusionModule(unet, text, tokenizer, latents, models.make_noise_schedule(), **optimisation)
        if self._train(name, module, trainer):
            with atomic_folder(self.folder / name) as partial:
                models.save_pipeline(partial, module.averaged(), vae, tokenizer)

    def ship(self) -> None:
        """Copies the results over the weights that are part of the package."""
        self._require("miniature", "miniature_sd", "clip")  # all of them, before any is replaced
        for name in ("miniature", "miniature_sd", "clip"):
            shutil.copytree(self.folder / name, WEIGHTS / name, dirs_exist_ok=True)

    def _require(self, *names: str) -> None:
        """Refuses a stage whose earlier ones have no results."""
        for name in names:
            if not (self.folder / name).is_dir():
                stage = "autoencoder" if name == "vae" else name
                raise UserError(f"{self.folder / name} is missing: run `scripts/miniature.py stage={stage}` first")

    def _train(self, name: str, module: MiniatureModule, trainer: Mapping[str, Any]) -> bool:
        """Trains a module, and returns whether this is the process that saves the result."""
        output = self.folder / "runs" / name
        fitted = fit(
            module,
            output,
            every_n_steps=250,
            max_steps=module.hparams["steps"],
            gradient_clip_val=1.0,
            log_every_n_steps=25,
            logger=CSVLogger(output, name="log", version=""),
            **trainer,
        )
        return fitted.is_global_zero


def load_common_weights(unet: UNet2DConditionModel, source: UNet2DConditionModel) -> None:
    """Copies the weights that both UNets have. Attention blocks that the source lacks are initialised to zero output.

    Args:
        unet: The UNet to initialise; it must have every weight of the source.
        source: The trained UNet.
    """
    missing, unexpected = unet.load_state_dict(source.state_dict(), strict=False)
    assert not unexpected, unexpected
    suffix = ".proj_out.weight"
    for name in (name.removesuffix(suffix) for name in missing if name.endswith(suffix)):
        torch.nn.init.zeros_(unet.get_submodule(name).proj_out.weight)
        torch.nn.init.zeros_(unet.get_submodule(name).proj_out.bias)
