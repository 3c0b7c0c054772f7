"""Cost of a calibration, computed before it starts: UNet passes, FLOPs and memory."""

from dataclasses import dataclass

import torch

from clockwork.adaptors import Linear
from clockwork.calibration.fit import steps_to_fit
from clockwork.calibration.least_squares import require_enough_captions
from clockwork.calibration.negative import num_negative_inputs
from clockwork.calibration.options import FitOptions
from clockwork.errors import UserError
from clockwork.flops.cost import step_flops
from clockwork.io.units import with_prefix
from clockwork.sampling.feature_shapes import feature_dims, feature_shapes
from clockwork.sampling.sampler import Sampler

NUM_KEPT_FEATURES = 3  # of the previous step and of the last two full steps


@dataclass(frozen=True)
class CalibrationPlan:
    """Cost of a calibration.

    Memory is per process; all other numbers are sums over the processes. FLOPs are in the convention `full`
    (docs/flops.md).

    Attributes:
        captions: Number of captions.
        held_out: How many of them choose the strength of the ridge.
        steps: Number of steps of the roll-out, which ends with the last adaptor step.
        fitted_steps: How many of them are fitted.
        unet_passes: Passes of the full UNet at batch 1; guidance counts as two. On an adaptor step the low-res path
            computes the target.
        flops: FLOPs of these passes.
        sums_bytes: Memory of the sums of a step.
        features_bytes: Memory of the features of earlier steps, of all captions.
    """

    captions: int
    held_out: int
    steps: int
    fitted_steps: int
    unet_passes: int
    flops: int
    sums_bytes: int
    features_bytes: int

    def __str__(self) -> str:
        """Formats the plan as a table of label, value and note."""
        rows = [
            ("captions", f"{self.captions:,}", f"of which {self.held_out} choose the ridge"),
            ("steps", f"{self.steps}", f"of which {self.fitted_steps} are fitted"),
            ("UNet passes", f"{self.unet_passes:,}", with_prefix(self.flops, "FLOPs")),
            ("sums in memory", with_prefix(self.sums_bytes, "B", 1024), "of one step"),
            ("features in memory", with_prefix(self.features_bytes, "B", 1024), "of earlier steps, all captions"),
        ]
        return "\n".join(f"{name:20} {value:>16}  {note}" for name, value, note in rows)


def calibration_plan(sampler: Sampler, captions: int, options: FitOptions, world_size: int = 1) -> CalibrationPlan:
    """Plans a calibration.

    Args:
        sampler: The operating point.
        captions: Number of captions.
        options: How maps are fitted.
        world_size: Number of processes.

    Returns:
        The plan.

    Raises:
        UserError: If the schedule has no adaptor steps, the captions are too few, or the rank is not below that of maps
            that are not factored.
    """
    adaptor_steps = steps_to_fit(sampler)
    r_in, r_out, _ = feature_shapes(sampler.teacher, sampler.split.cut)
    with torch.device("meta"):
        inputs = Linear(feature_dims(sampler.teacher, sampler.split.cut), (1,), options.terms).num_inputs
    num_halves = sampler.teacher.unet_calls_per_step(sampler.guidance)
    if options.positive_only:
        side, channels = sampler.teacher.latent_shape[1:], sampler.split.unet.config.out_channels
        require_enough_captions(captions, num_negative_inputs(channels) + 1, side[0] * side[1])
    halves_fitted = 1 if options.positive_only else num_halves
    _check(captions, options.num_unknowns(inputs, halves_fitted), r_out, options.rank)
    width = halves_fitted * (inputs + 1 + r_out[1])
    kept = NUM_KEPT_FEATURES * (r_in.numel() + r_out.numel()) * sampler.split.dtype.itemsize
    period = options.hold_out_period(captions)
    # For the target of the features alone, the positive half's low-res path runs once more.
    unet_passes = captions * (num_halves * max(adaptor_steps) + options.positive_only * len(adaptor_steps))
    return CalibrationPlan(
        captions=captions,
        held_out=0 if period is None else captions // period,
        steps=max(adaptor_steps),
        fitted_steps=len(adaptor_steps),
        unet_passes=unet_passes,
        flops=unet_passes * step_flops(sampler)[0].full,
        sums_bytes=2 * width**2 * torch.float64.itemsize,  # of the fitted and of the held-out captions
        features_bytes=-(-captions // world_size) * halves_fitted * kept,
    )


def _check(captions: int, inputs: int, r_out: torch.Size, rank: int | None) -> None:
    """Refuses fewer observations than each map has inputs, and a rank that would factor nothing."""
    channels = r_out[1]
    require_enough_captions(captions, inputs, r_out[2] * r_out[3])
    if rank is not None and rank >= channels:
        raise UserError(
            f"rank {rank} is not below the {channels} channels of r_out: pass a smaller rank, or null for maps that "
            "are not factored"
        )
