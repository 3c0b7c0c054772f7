"""`calibrate`: an adaptor for a pipeline as it is called, fitted in closed form in one call of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor

from clockwork.adaptors import Linear
from clockwork.calibration.denoiser import CalibratingDenoiser
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError
from clockwork.pipeline.adaptor_copy import frozen_copy
from clockwork.pipeline.calibration_call import pipeline_arguments, prompts_for
from clockwork.pipeline.compiling import pipeline_functions
from clockwork.pipeline.enable import check_hooks, replace_hook, whole_unet
from clockwork.pipeline.guidance import guidance_weights
from clockwork.pipeline.hook import ClockHook, get_hook
from clockwork.pipeline.parts import get_unet, pipeline_name, unet_fingerprint
from clockwork.pipeline.step_log import StepLog
from clockwork.pipeline.step_tracking import BOTH_HALVES, StepLocation, TextEmbedding
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised
from clockwork.schedule import Schedule
from clockwork.unet.chain import Cut
from clockwork.unet.conditioning import HALVES
from clockwork.unet.split import SplitUNet


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
        pipe: A diffusers pipeline with a UNet, in any precision, on any device.
        prompts: Some dozens of prompts like those that will be used; by default 64 captions that come with Clockwork.
            None for a pipeline that takes no prompts: it generates 64 unconditional images, or what its arguments in
            `call` are for, such as a list of images to animate.
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
    unet, prompts = get_unet(pipe), prompts_for(pipe, prompts)
    clock, options, start = Schedule.parse(schedule), _checked(options), perf_counter()
    check_hooks(pipe)
    split, previous = SplitUNet(unet, cut), get_hook(unet)
    if clock == Schedule():
        raise UserError("schedule full has no adaptor steps to calibrate: use clock2")
    functions = pipeline_functions(whole_unet(pipe), compile)
    denoiser = CalibratingDenoiser(split, clock, partial(guidance_weights, pipe), options)
    arguments = pipeline_arguments(pipe, prompts, call, seed)
    per_prompt = call.get("num_images_per_prompt") or call.get("num_videos_per_prompt") or 1
    num_images = None if prompts is None else len(prompts) * int(per_prompt)
    teacher = teacher or (pipeline_name(pipe), unet_fingerprint(unet))
    hook = CalibrationHook(pipe, denoiser, teacher, num_images)
    replace_hook(pipe, hook)
    try:
        with torch.no_grad():
            pipe(**arguments)
    finally:
        replace_hook(pipe, previous)
    adaptor = denoiser.fitted()
    adaptor.point = hook.log.ran
    fits = [asdict(fit) for fit in denoiser.progress.fits]
    num_prompts = hook.num_images if prompts is None else len(prompts)
    adaptor.calibration = {"prompts": num_prompts, "seconds": round(perf_counter() - start, 2), "steps": fits}
    # Not by `enable`, which would read all weights once more to check the adaptor against this UNet.
    clocked = ClockworkDenoiser(split, frozen_copy(adaptor), clock, functions)
    replace_hook(pipe, ClockHook(pipe, clocked, teacher, adaptor.point))
    return adaptor


def _checked(options: FitOptions | None) -> FitOptions:
    """Returns the options, by default the usual ones."""
    if not isinstance(options, FitOptions | None):
        raise UserError(f"options={str(options)[:50]!r} is not possible: pass clockwork.calibration.options.FitOptions")
    return options or FitOptions()


class CalibrationHook(ClockHook):
    """The hook during a calibration: runs the calibrating denoiser and refuses calls that it cannot follow.

    Args:
        pipe: The pipeline.
        denoiser: The denoiser that calibrates.
        teacher: Name and weights' fingerprint of the UNet.
        num_images: Number of images or videos that the call generates; None to take it from the UNet's first call.
    """

    runs_teacher = True

    def __init__(
        self, pipe: Any, denoiser: CalibratingDenoiser, teacher: tuple[str, str], num_images: int | None
    ) -> None:
        super().__init__(pipe, cast(ClockworkDenoiser, denoiser), teacher)  # it has the same attributes
        self.num_images, self.calibrating = num_images, denoiser

    def _check_branches(self, branches: tuple[str, ...] | None) -> None:
        """Tells the denoiser which branches of guidance it fits maps for."""
        self.calibrating.start(branches or HALVES[1:])

    def _step(
        self, call: dict[str, Any], location: StepLocation, log: StepLog
    ) -> tuple[Denoised, TextEmbedding | None]:
        """Runs and logs a step, if it is one of the call's steps, in order and with all images."""
        reason = log.forced_full_reason or location.forced_full_reason or (BOTH_HALVES if log.halves_apart else None)
        if reason is not None:
            raise UserError(f"this pipeline cannot be calibrated: {reason}")
        batch = len(call["sample"])
        branches = self.branches(call["timestep"], batch, apart=False) or HALVES[1:]
        if self.num_images is None:
            self.num_images = batch // len(branches)
        expected = self.num_images * len(branches)
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
