"""The settings with which a pipeline generates an image, as an operating point."""

from typing import Any

from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.guidance import guidance_scale, more_guidance
from clockwork.pipeline.unet_call import UNetCall
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.sampling.solvers import solver_name, solver_settings, timesteps_of_caller


def operating_point(
    pipe: Any, teacher: tuple[str, str], denoiser: ClockworkDenoiser, first_call: UNetCall
) -> OperatingPoint:
    """Describes how a pipeline generates an image.

    Args:
        pipe: The pipeline, in its call.
        teacher: Name and weights' fingerprint of its UNet.
        denoiser: What replaces the UNet.
        first_call: The image's first UNet call.
    """
    solver, position, steps = pipe.scheduler, first_call.position, first_call.num_left
    if position == 0:  # else an image is changed (strength), with fewer steps than the solver's
        steps = getattr(solver, "num_inference_steps", None) or steps
    factor = getattr(pipe, "vae_scale_factor", getattr(pipe, "movq_scale_factor", 1))  # the latter is Kandinsky's
    shape = first_call.sample_spec[0]
    height, width = (side * factor for side in shape[-2:])
    return OperatingPoint(
        *teacher,
        cut=str(denoiser.split.cut),
        schedule=str(denoiser.schedule),
        solver=solver_name(solver),
        steps=steps,
        guidance=guidance_scale(pipe),
        resolution=height,
        width=None if width == height else width,
        guidance_rescale=float(getattr(pipe, "guidance_rescale", 0.0)),
        solver_settings=solver_settings(solver),
        timesteps=timesteps_of_caller(solver, steps, position),
        frames=denoiser.split.kind.num_frames(shape),
        more_guidance=more_guidance(pipe),
    )
