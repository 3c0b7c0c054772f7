"""The prompts of a calibration, and the arguments of the pipeline's call that generates their latents."""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clockwork.errors import UserError, check_number, check_whole

CAPTIONS = Path(__file__).parents[1] / "data" / "captions.txt"
OLD_ARGUMENTS = ("callback", "callback_steps")  # which pipelines still accept among their `**kwargs`
NUM_IMAGES = 64  # that a pipeline without prompts generates, as many as there are captions
BY_IMAGE = {"noise_level", "image_guidance_scale"}  # arguments of pipelines that take an image per prompt
TEXTS = ("negative_prompt", "prompt_2", "negative_prompt_2")  # arguments of pipelines that take a text per prompt


def default_prompts() -> list[str]:
    """Returns the 64 captions that come with Clockwork."""
    return CAPTIONS.read_text(encoding="utf-8").splitlines()


def prompts_for(pipe: Any, prompts: Sequence[str] | None) -> list[str] | None:
    """Returns the prompts as a list; None for a pipeline that takes none.

    Args:
        pipe: The pipeline.
        prompts: The caller's prompts; None for those that come with Clockwork.

    Raises:
        UserError: If there are none, or if the pipeline takes none, or is a modular one.
    """
    if getattr(pipe, "guider", None) is not None:
        raise UserError(
            f"{type(pipe).__name__} calls its UNet once per half of guidance, and calibration reads both in one call: "
            "calibrate a pipeline that batches them, of the same components, and pass its adaptor to clockwork.enable"
        )
    if "prompt" not in inspect.signature(type(pipe).__call__).parameters:
        if prompts is not None:
            raise UserError(
                f"{type(pipe).__name__} takes no prompts: pass None, and its own arguments for some dozens of images, "
                "such as batch_size=64 or a list of images"
            )
        return None
    prompts = default_prompts() if prompts is None else prompts
    if isinstance(prompts, Iterable) and not isinstance(prompts, str):
        prompts = list(prompts)  # also of a generator, which can be read only once
    if not isinstance(prompts, list) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise UserError(
            "calibration needs a list of prompts: pass some dozens of texts, or None for those of Clockwork"
        )
    return prompts


def pipeline_arguments(pipe: Any, prompts: Sequence[str] | None, call: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns the arguments of a call that generates the latents of all prompts.

    Args:
        pipe: The pipeline.
        prompts: The prompts; None for a pipeline that takes none, whose arguments are then those of the whole call.
        call: The arguments of a call for one prompt. Texts become lists, and single images are repeated where the
            pipeline needs as many images as prompts.
        seed: Seed of the noise, if `call` has no generator.

    Returns:
        Keyword arguments of the pipeline.

    Raises:
        UserError: If `call` has an argument that the pipeline does not know, or prompts as embeddings.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    for name in call:
        if name not in parameters and name not in OLD_ARGUMENTS:
            raise UserError(f"{type(pipe).__name__} has no argument {name}: pass arguments of its own call")
        if name.startswith("prompt_embeds") or name in ("prompt", "output_type", "return_dict"):
            raise UserError(f"{name} cannot be passed on to the pipeline: calibration passes its prompts as texts")
    _check_frames(pipe, call)
    for name, least in (("num_inference_steps", 1), ("num_images_per_prompt", 1), ("num_videos_per_prompt", 1)):
        if name in call and (call[name] is not None or not {"timesteps", "sigmas"} & call.keys()):
            check_whole(name, call[name], least)
    if isinstance(call.get("guidance_scale"), str | float):
        check_number("guidance_scale", call["guidance_scale"], 0)
    arguments = {"generator": torch.Generator().manual_seed(check_whole("seed", seed, 0, 2**63 - 1)), **call}
    if prompts is None:
        if "batch_size" in parameters:  # of unconditional images, whose pipelines know no latents
            return {"batch_size": NUM_IMAGES, **arguments, "output_type": "np"}
        return {**arguments, "output_type": "latent"}
    count = len(prompts)
    for name in TEXTS:
        texts = [call[name]] if isinstance(call.get(name), str) else call.get(name)
        if not isinstance(texts, Sequence | None) or not all(isinstance(text, str) for text in texts or ()):
            raise UserError(f"{name}={call[name]!r:.50} is not possible: pass a text, or a list of texts")
        if texts:
            arguments[name] = [texts[i % len(texts)] for i in range(count)]
    is_image_to_image = ("strength" in parameters and "mask_image" not in parameters) or bool(
        BY_IMAGE & set(parameters)
    )
    if call.get("image") is not None and (is_image_to_image or "adapter_conditioning_scale" in parameters):
        several = hasattr(getattr(pipe, "adapter", None), "adapters")
        image = call["image"]
        arguments["image"] = [_repeated(part, count) for part in image] if several else _repeated(image, count)
    return {**arguments, "prompt": list(prompts), "output_type": "latent"}


def _check_frames(pipe: Any, call: Mapping[str, Any]) -> None:
    """Refuses more frames than motion modules have positions for (AnimateDiff); FreeNoise runs them on windows."""
    num_frames, config = call.get("num_frames"), getattr(getattr(pipe, "unet", None), "config", {})
    longest = config.get("motion_max_seq_length")
    if num_frames and longest and num_frames > longest and not getattr(pipe, "free_noise_enabled", False):
        raise UserError(
            f"num_frames={num_frames} is more than the {longest} frames that the motion modules know: pass {longest}, "
            "or call pipe.enable_free_noise() first"
        )


def _repeated(image: Any, count: int) -> Any:
    """Repeats a single image; as many as are needed already stay as they are."""
    if isinstance(image, Tensor):
        image = image[None] if image.dim() == 3 else image
        return image.expand(count, *image.shape[1:]) if len(image) == 1 else image
    images = list(image) if isinstance(image, (list, tuple)) else [image]
    return images * count if len(images) == 1 else images
