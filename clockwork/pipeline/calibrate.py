"""`calibrate`: an adaptor for a pipeline as it is called, fitted in closed form in one call of it."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor

from clockwork.adaptors import Linear
from clockwork.calibration.denoiser import CalibratingDenoiser
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError
from clockwork.pipeline.adaptor_copy import frozen_copy
from clockwork.pipeline.compiling import pipeline_functions
from clockwork.pipeline.enable import check_hooks, replace_hook, whole_unet
from clockwork.pipeline.hook import ClockHook, get_hook
from clockwork.pipeline.parts import get_unet, is_guided, num_branches, pipeline_name, refuse_videos, unet_fingerprint
from clockwork.pipeline.step_log import StepLog
from clockwork.pipeline.step_tracking import UNKNOWN_HALF, StepLocation, TextEmbedding
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised
from clockwork.schedule import Schedule
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet

CAPTIONS = Path(__file__).parents[1] / "data" / "captions.txt"
OLD_ARGUMENTS = ("callback", "callback_steps")  # which pipelines still accept among their `**kwargs`
TEXTS = ("negative_prompt", "prompt_2", "negative_prompt_2")  # arguments of pipelines that take a text per prompt


def calibrate(
    pipe: Any,
    prompts: Sequence[str] | None = None,
    schedule: str | int | Sequence[int] | Schedule = "clock2",
    cut: str | Sequence[int] | Cut = "stage1_upsampled",
    *,
    options: FitOptions | None = None,
    seed: int = 0,
    compile: bool | Mapping[str, Any] | None = None,
    **call: Any,
) -> Linear:
    """Fits an adaptor for the pipeline in closed form, and enables Clockwork with it.

    The pipeline generates all prompts in one call, with the given arguments; its UNet runs on a few prompts at a time.
    On each adaptor step a linear map of the features is fitted, which replaces the low-res path from then on
    (docs/calibration.md). The call takes about as long as generating the prompts without Clockwork.

    The adaptor belongs to the arguments that change the roll-out: the number of steps, the solver, the guidance scale,
    the negative prompt. If you use several negative prompts, pass them as a list: the prompts take them in turn.

    If anything fails, or on Ctrl-C, the pipeline is left as it was before.

    Args:
        pipe: A diffusers pipeline with a UNet for images, in any precision, on any device.
        prompts: Some dozens of prompts like those that will be used; by default 64 captions that come with Clockwork.
        schedule: Which steps are full.
        cut: Where the UNet is split.
        options: How the maps are fitted, and how many prompts the UNet runs on at a time.
        seed: Seed of the noise, if `call` has no generator.
        compile: Whether Clockwork is enabled with compiled steps, as in `enable`. The calibration itself runs
            uncompiled.
        **call: Arguments of the pipeline's own call, such as `num_inference_steps`, `guidance_scale`,
            `negative_prompt`, or the images of image-to-image. One text or image serves all prompts.

    Returns:
        The adaptor. `clockwork.save_adaptor(folder, adaptor)` saves it.

    Raises:
        UserError: If the UNet cannot be split, the cut does not fit it, the prompts are too few, the schedule does not
            fit the steps, `compile` is not possible, or the pipeline calls its UNet in a way that cannot be followed.

    Example:
        >>> adaptor = clockwork.calibrate(pipe, prompts, num_inference_steps=8, guidance_scale=7.5)
        >>> image = pipe("a lighthouse in a storm", num_inference_steps=8, guidance_scale=7.5).images[0]
        >>> clockwork.save_adaptor("lighthouse", adaptor)
    """
    return calibrate_call(pipe, prompts, schedule, cut, call, options, seed, compile)


def calibrate_call(
    pipe: Any,
    prompts: Sequence[str] | None,
    schedule: str | int | Sequence[int] | Schedule,
    cut: str | Sequence[int] | Cut,
    call: Mapping[str, Any],
    options: FitOptions | None,
    seed: int,
    compile: bool | Mapping[str, Any] | None = None,
    teacher: tuple[str, str] | None = None,
) -> Linear:
    """Does the work of `calibrate`.

    Args:
        pipe: A diffusers pipeline; this and the other arguments are those of `calibrate`.
        prompts: The prompts.
        schedule: Which steps are full.
        cut: Where the UNet is split.
        call: Arguments of the pipeline's own call.
        options: How the maps are fitted.
        seed: Seed of the noise.
        compile: Whether Clockwork is enabled with compiled steps.
        teacher: Name and weights' fingerprint of the UNet, for callers that calibrate several times.

    Returns:
        The adaptor.
    """
    prompts = _checked(default_prompts() if prompts is None else prompts)
    unet, clock, options, start = get_unet(pipe), Schedule.parse(schedule), options or FitOptions(), perf_counter()
    check_hooks(pipe)
    split, previous = SplitUNet(unet, cut), get_hook(unet)
    refuse_videos(unet)
    if clock == Schedule():
        raise UserError("schedule full has no adaptor steps to calibrate: use clock2")
    functions = pipeline_functions(whole_unet(pipe), compile)
    denoiser = CalibratingDenoiser(split, clock, lambda: float(getattr(pipe, "guidance_scale", 1.0)), options)
    arguments = pipeline_arguments(pipe, prompts, call, seed)
    num_images = len(prompts) * int(call.get("num_images_per_prompt") or 1)
    teacher = teacher or (pipeline_name(pipe), unet_fingerprint(unet))
    hook = CalibrationHook(pipe, denoiser, teacher, num_images)
    replace_hook(pipe, hook)
    try:
        with torch.no_grad():
            pipe(**arguments)
    finally:
        replace_hook(pipe, previous)
    adaptor = denoiser.progress.adaptor(denoiser.adaptor.dims, options.terms)
    adaptor.point = hook.log.ran
    fits = [asdict(fit) for fit in denoiser.progress.fits]
    adaptor.calibration = {"prompts": len(prompts), "seconds": round(perf_counter() - start, 2), "steps": fits}
    # Not by `enable`, which would read all weights once more to check the adaptor against this UNet.
    clocked = ClockworkDenoiser(split, frozen_copy(adaptor), clock, functions)
    replace_hook(pipe, ClockHook(pipe, clocked, teacher, adaptor.point))
    return adaptor


def default_prompts() -> list[str]:
    """Returns the 64 captions that come with Clockwork."""
    return CAPTIONS.read_text(encoding="utf-8").splitlines()


def _checked(prompts: Sequence[str]) -> list[str]:
    """Returns the prompts as a list, if they are some."""
    if isinstance(prompts, str) or not prompts or not all(isinstance(prompt, str) for prompt in prompts):
        raise UserError(
            "calibration needs a list of prompts: pass some dozens of texts, or None for those of Clockwork"
        )
    return list(prompts)


class CalibrationHook(ClockHook):
    """The hook during a calibration: runs the calibrating denoiser and refuses calls that it cannot follow.

    Args:
        pipe: The pipeline.
        denoiser: The denoiser that calibrates.
        teacher: Name and weights' fingerprint of the UNet.
        num_images: Number of images that the call generates.
    """

    runs_teacher = True

    def __init__(self, pipe: Any, denoiser: CalibratingDenoiser, teacher: tuple[str, str], num_images: int) -> None:
        super().__init__(pipe, cast(ClockworkDenoiser, denoiser), teacher)  # it has the same attributes
        self.num_images = num_images

    def _step(
        self, call: dict[str, Any], location: StepLocation, log: StepLog
    ) -> tuple[Denoised, TextEmbedding | None]:
        """Runs and logs a step, if it is one of the call's steps, in order and with all images."""
        if (branches := num_branches(self.pipe)) > 2:
            raise UserError(
                f"this pipeline cannot be calibrated: its guidance has {branches} branches per image, and calibration "
                "fits maps for two"
            )
        reason = log.forced_full_reason or location.forced_full_reason or (UNKNOWN_HALF if log.halves_apart else None)
        if reason is not None:
            raise UserError(f"this pipeline cannot be calibrated: {reason}")
        batch = len(call["sample"])
        expected = self.num_images * (2 if is_guided(self.pipe, batch) else 1)
        if batch != expected:
            raise UserError(
                f"this pipeline cannot be calibrated: its UNet is called with {batch} examples, but {self.num_images} "
                f"images need {expected}: use clockwork.enable, whose identity adaptor needs no "
                "calibration"
            )
        return super()._step(call, location, log)

    def denoiser_for(self, sample: Tensor) -> Any:
        """Returns the calibrating denoiser, which places its adaptor itself."""
        return self.denoiser


def pipeline_arguments(pipe: Any, prompts: Sequence[str], call: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Returns the arguments of a call that generates the latents of all prompts.

    Args:
        pipe: The pipeline.
        prompts: The prompts.
        call: The arguments of a call for one prompt. Texts become lists, and single images are repeated where the
            pipeline needs as many images as prompts.
        seed: Seed of the noise, if `call` has no generator.

    Returns:
        Keyword arguments of the pipeline.

    Raises:
        UserError: If the pipeline takes no prompts, or `call` has an argument that it does not know, or prompts as
            embeddings.
    """
    parameters, count = inspect.signature(type(pipe).__call__).parameters, len(prompts)
    if "prompt" not in parameters:
        raise UserError(
            f"{type(pipe).__name__} takes no prompts, which calibration passes: use clockwork.enable, whose identity "
            "adaptor needs none"
        )
    for name in call:
        if name not in parameters and name not in OLD_ARGUMENTS:
            raise UserError(f"{type(pipe).__name__} has no argument {name}: pass arguments of its own call")
        if name.startswith("prompt_embeds") or name in ("prompt", "output_type", "return_dict"):
            raise UserError(f"{name} cannot be passed on to the pipeline: calibration passes its prompts as texts")
    arguments = {"generator": torch.Generator().manual_seed(seed), **call}
    for name in TEXTS:
        texts = [call[name]] if isinstance(call.get(name), str) else call.get(name)
        if texts:
            arguments[name] = [texts[i % len(texts)] for i in range(count)]
    is_image_to_image = ("strength" in parameters and "mask_image" not in parameters) or "noise_level" in parameters
    if call.get("image") is not None and (is_image_to_image or "adapter_conditioning_scale" in parameters):
        several = hasattr(getattr(pipe, "adapter", None), "adapters")
        image = call["image"]
        arguments["image"] = [_repeated(part, count) for part in image] if several else _repeated(image, count)
    return {**arguments, "prompt": list(prompts), "output_type": "latent"}


def _repeated(image: Any, count: int) -> Any:
    """Repeats a single image; as many as are needed already stay as they are."""
    if isinstance(image, Tensor):
        image = image[None] if image.dim() == 3 else image
        return image.expand(count, *image.shape[1:]) if len(image) == 1 else image
    images = list(image) if isinstance(image, (list, tuple)) else [image]
    return images * count if len(images) == 1 else images
