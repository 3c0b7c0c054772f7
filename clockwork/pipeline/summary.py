"""`summary`: which steps of a pipeline's last image were full, and what the image cost."""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from clockwork.flops.cost import has_packed_layers, on_meta
from clockwork.flops.counter import Flops, count_flops
from clockwork.flops.unet_call import full_and_adaptor_flops
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_log import LoggedStep
from clockwork.sampling.denoisers import ClockworkDenoiser

PACKED = "the UNet has quantised layers whose weights are packed, and torch cannot count these"


@dataclass(frozen=True)
class Summary:
    """Steps and FLOPs of a pipeline's last image.

    FLOPs are those of the UNet, the adaptor and ControlNets, over all steps and the whole batch, both passes of
    guidance included.

    Attributes:
        cut: The cut, `down,up`.
        schedule: The schedule.
        adaptor: Class name of the adaptor.
        full_steps: Number of steps on which the full UNet ran.
        adaptor_steps: Number of steps on which the adaptor ran.
        forced_full_steps: Number of full steps that the schedule gave to the adaptor, by reason.
        flops: FLOPs with Clockwork.
        flops_without: FLOPs if every step were full.
        trained: The operating point that the adaptor was trained for; None for an adaptor without one.
        ran: The operating point of the image; None if the position of its calls in the timesteps is unknown.
        differences: In which fields `ran` differs from `trained`, for example "steps 6, not 8".
        uncounted: Why FLOPs were not counted and are 0; None if they were.
    """

    cut: str
    schedule: str
    adaptor: str
    full_steps: int
    adaptor_steps: int
    forced_full_steps: dict[str, int]
    flops: Flops
    flops_without: Flops
    trained: OperatingPoint | None
    ran: OperatingPoint | None
    differences: list[str]
    uncounted: str | None = None

    def __str__(self) -> str:
        lines = [
            f"Clockwork: {self.adaptor}, schedule {self.schedule}, cut {self.cut}",
            f"last call: {self.full_steps} full and {self.adaptor_steps} adaptor steps",
            *(f"  {count} of the full: {reason}" for reason, count in self.forced_full_steps.items()),
        ]
        if self.uncounted is not None:
            lines.append(f"FLOPs are not counted: {self.uncounted}")
        for name in ("paper", "full"):
            flops, without = getattr(self.flops, name), getattr(self.flops_without, name)
            if without:
                saved = 1 - flops / without
                lines.append(f"GFLOPs ({name}): {flops / 1e9:.6g}, without {without / 1e9:.6g} ({-saved:+.1%})")
        if self.trained is not None:
            lines.append(f"adaptor trained for: {_describe(self.trained)}")
        if self.ran is not None:
            lines.append(f"ran: {_describe(self.ran)}")
        if self.trained is not None and self.ran is not None:
            lines.append(f"differences: {'; '.join(self.differences) or 'none'}")
            if self.trained.solver_settings is None:
                lines.append("the solver's settings were not compared: the adaptor has no record of those it is for")
        return "\n".join(lines)


def summary(pipe: Any) -> Summary:
    """Prints and returns the steps and FLOPs of a pipeline's last image.

    The last image is the one to which the calling thread's last step belongs, finished or not. In a thread that has
    generated nothing, it is the one to which the last step of all threads belongs.

    Args:
        pipe: A pipeline with Clockwork enabled.

    Returns:
        The summary that is printed.

    Raises:
        UserError: If Clockwork is not enabled on the pipeline.
    """
    report = summarise(pipe)
    print(report)
    return report


def summarise(pipe: Any) -> Summary:
    """Returns what `summary` prints.

    FLOPs are counted by this call, from the shapes of the logged steps, so generating an image is not slowed down.

    Args:
        pipe: A pipeline with Clockwork enabled.

    Raises:
        UserError: If Clockwork is not enabled on the pipeline.
    """
    hook = enabled_hook(pipe)
    log, denoiser = hook.log, hook.denoiser
    steps = tuple(log.steps)  # a copy: another thread may append to it
    uncounted = PACKED if has_packed_layers(denoiser.split.unet) else None
    flops, flops_without = (Flops(), Flops()) if uncounted else _flops(denoiser, steps)
    return Summary(
        cut=str(denoiser.split.cut),
        schedule=str(denoiser.schedule),
        adaptor=type(denoiser.adaptor).__name__,
        full_steps=sum(step.full for step in steps),
        adaptor_steps=sum(not step.full for step in steps),
        forced_full_steps=dict(Counter(s.forced_full_reason for s in steps if s.forced_full_reason is not None)),
        flops=flops,
        flops_without=flops_without,
        trained=hook.trained,
        ran=log.ran,
        differences=log.differences,
        uncounted=uncounted,
    )


def _flops(denoiser: ClockworkDenoiser, steps: Sequence[LoggedStep]) -> tuple[Flops, Flops]:
    """Counts the FLOPs of all steps, with Clockwork and without it."""
    flops, flops_without = Flops(), Flops()
    costs: dict[Hashable, tuple[Flops, Flops]] = {}
    for step in steps:
        kind = step.signature, step.full, step.guided
        if kind not in costs:
            costs[kind] = _costs(denoiser, step)
        with_clockwork, without = costs[kind]
        flops, flops_without = flops + with_clockwork, flops_without + without
    return flops, flops_without


def _costs(denoiser: ClockworkDenoiser, step: LoggedStep) -> tuple[Flops, Flops]:
    """Counts a step with its ControlNets, with Clockwork and without it."""
    full, adaptor = full_and_adaptor_flops(denoiser.split, denoiser.adaptor, step.call, step.guided)
    ran, without = full if step.full else adaptor, full
    for controlnet in step.controlnets:
        on_device = replace(controlnet, net=on_meta(controlnet.net))
        ran, without = ran + count_flops(on_device.run), without + count_flops(replace(on_device, kept=None).run)
    return ran, without


def _describe(point: OperatingPoint) -> str:
    """Describes an operating point in one line."""
    more = f", {point.further_guidance}" if point.more_guidance else ""
    size = point.resolution if point.width is None else f"{point.resolution} × {point.width}"
    return (
        f"{point.teacher}, schedule {point.schedule}, {point.solver}, {point.steps} steps, "
        f"guidance {point.guidance:g}{more}, {size} pixels"
    )
