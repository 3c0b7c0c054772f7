"""The table of FLOPs that the identity adaptor saves on published UNets, from the architectures alone."""

from collections.abc import Iterable

from clockwork.flops.published_unets import PUBLISHED_UNETS, rollouts
from clockwork.reports.formats import Sheet

SCHEDULES, STEPS = ("clock2", "clock4"), (4, 8)
NOTE = (
    "TFLOPs in the convention `full` (docs/flops.md), of one branch of guidance: without Clockwork, then with the "
    "identity adaptor at the cut `stage1`, as `clockwork.enable` has them by default. Text encoder and decoder are not "
    "included."
)


def savings_sheet(names: Iterable[str] = PUBLISHED_UNETS) -> Sheet:
    """Counts published UNets on the `meta` device.

    Args:
        names: Names of the UNets, keys of `PUBLISHED_UNETS`.

    Returns:
        The table, a line per UNet.
    """
    settings = [(schedule, steps) for schedule in SCHEDULES for steps in STEPS]
    columns = ("UNet", "generates", "parameters (M)", "TFLOPs per call", *(f"{s}, {n} steps" for s, n in settings))
    return Sheet("FLOPs of published UNets", columns, [_line(name, settings) for name in names], (NOTE,))


def _line(name: str, settings: list[tuple[str, int]]) -> tuple[str, ...]:
    """Counts one UNet."""
    published = PUBLISHED_UNETS[name]
    parts = published.parts()
    parameters = sum(weight.numel() for weight in published.unet().parameters()) / 1e6
    cells = []
    for schedule, steps in settings:
        with_clockwork, without = (flops.full / 1e12 for flops in rollouts(parts, schedule, steps))
        cells.append(f"{without:.3g} → {with_clockwork:.3g} (−{1 - with_clockwork / without:.1%})")
    return name, published.size, f"{parameters:.1f}", f"{parts.full_pass.full / 1e12:.3g}", *cells
