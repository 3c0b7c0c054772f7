"""Checks of a pipeline's configs: that Clockwork's solvers and decoding do what the pipeline's folder says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from clockwork.errors import UserError

# Schedulers whose noise levels are not those of a variance-preserving diffusion, for which the solvers are made.
OTHER_SCHEDULERS = ("EDM", "FlowMatch", "CMStochastic", "KarrasVe", "ScoreSdeVe", "VQDiffusion")


def check_configs(source: Path | str, resolution: int | None, flow: bool) -> None:
    """Refuses a pipeline that would give other images than its folder says.

    Args:
        source: A pipeline folder, or a name on the hub.
        resolution: Side of the images, if it is given.
        flow: Whether the UNet predicts the velocity of a rectified flow.

    Raises:
        UserError: If its autoencoder, its scheduler or the size of its samples is not supported.
    """
    try:
        unet: Any = UNet2DConditionModel.load_config(source, subfolder="unet")
        vae: Any = AutoencoderKL.load_config(source, subfolder="vae")
        scheduler: Any = DDIMScheduler.load_config(source, subfolder="scheduler")
    except OSError:
        return  # a part is missing or damaged, which loading names
    _check_scheduler(source, scheduler, flow)
    for name in ("latents_mean", "latents_std", "shift_factor"):
        if vae.get(name):
            raise UserError(
                f"the autoencoder of {source} has {name}, which is not supported: use a pipeline whose latents are "
                "scaled by scaling_factor only"
            )
    size = unet.get("sample_size", 0)
    if resolution is None and not (isinstance(size, int) and size >= 0):
        raise UserError(
            f"the UNet of {source} has sample_size {size}, which is not one side: pass teacher.resolution=<pixels>"
        )


def _check_scheduler(source: Path | str, scheduler: Mapping[str, Any], flow: bool) -> None:
    """Refuses a scheduler that none of the solvers can stand for."""
    name = str(scheduler.get("_class_name", ""))
    if flow and name.startswith("FlowMatch"):
        return
    if name.startswith(OTHER_SCHEDULERS) or (scheduler.get("use_flow_sigmas") and not flow):
        raise UserError(
            f"{source} has a {name} of other noise levels than Clockwork's solvers: use a pipeline whose scheduler is "
            "a DDIMScheduler, a PNDMScheduler or another one with betas"
        )
