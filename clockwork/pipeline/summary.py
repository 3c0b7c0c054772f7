"""What a pipeline's last image did, and what it cost."""

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from clockwork.flops.cost import full_and_adaptor_flops
from clockwork.flops.counter import Flops
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.enable import enabled


@dataclass(frozen=True)
class Summary:
    """FLOPs are of the UNet and the adaptor, all steps and the whole batch."""

    cut: str
    schedule: str
    adaptor: str
    full_steps: int
    adaptor_steps: int
    forced_full_steps: dict[str, int]  # those that the schedule gave to the adaptor, by their reason
    flops: Flops
    flops_without: Flops  # every step in full
    trained: OperatingPoint | None  # the adaptor's operating point
    ran: OperatingPoint | None  # None where no step's place was known
    differences: list[str]  # "steps 6, not 8": of what ran from the adaptor's operating point

    def __str__(self) -> str:
        lines = [
            f"Clockwork: {self.adaptor}, schedule {self.schedule}, cut {self.cut}",
            f"last call: {self.full_steps} full and {self.adaptor_steps} adaptor steps",
            *(f"  {count} of the full: {reason}" for reason, count in self.forced_full_steps.items()),
        ]
        for name in ("paper", "full"):
            with_it, without = getattr(self.flops, name), getattr(self.flops_without, name)
            if without:
                saved = 1 - with_it / without
                lines.append(f"GFLOPs ({name}): {with_it / 1e9:.6g}, without {without / 1e9:.6g} ({-saved:+.1%})")
        if self.trained is not None:
            lines.append(f"adaptor trained for: {_describe(self.trained)}")
        if self.ran is not None:
            lines.append(f"ran: {_describe(self.ran)}")
        if self.trained is not None and self.ran is not None:
            lines.append(f"differs: {'; '.join(self.differences) or 'in nothing'}")
        return "\n".join(lines)


def summary(pipe: Any) -> Summary:
    """Prints and returns what the last image did.

    Each image has figures of its own. This is the one that had the calling thread's last step, finished or not; in a
    thread that has generated nothing, the one that had the last step of all threads.

    Args:
        pipe: An enabled pipeline.

    Raises:
        UserError: Clockwork is not enabled on it.
    """
    report = summarise(pipe)
    print(report)
    return report


def summarise(pipe: Any) -> Summary:
    """What `summary` prints. FLOPs are counted on shapes now, so the image itself pays nothing for them."""
    hook = enabled(pipe)
    log, clocked = hook.log, hook.clocked
    steps = tuple(log.steps)  # a copy: another thread may add to it
    spent, without = Flops(), Flops()
    costs: dict[Hashable, tuple[Flops, Flops]] = {}
    for step in steps:
        if step.form not in costs:
            costs[step.form] = full_and_adaptor_flops(clocked.split, clocked.adaptor, step.call)
        full, adaptor = costs[step.form]
        spent, without = spent + (full if step.full else adaptor), without + full
    return Summary(
        cut=str(clocked.split.cut),
        schedule=str(clocked.schedule),
        adaptor=type(clocked.adaptor).__name__,
        full_steps=sum(step.full for step in steps),
        adaptor_steps=sum(not step.full for step in steps),
        forced_full_steps=dict(Counter(s.forced_full_reason for s in steps if s.forced_full_reason is not None)),
        flops=spent,
        flops_without=without,
        trained=hook.trained,
        ran=log.ran,
        differences=log.differences,
    )


def _describe(point: OperatingPoint) -> str:
    return (
        f"{point.teacher}, schedule {point.schedule}, {point.solver}, {point.steps} steps, "
        f"guidance {point.guidance:g}, {point.resolution} pixels"
    )
