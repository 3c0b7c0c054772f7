"""The menu of `tune`: what cuts and schedules cost, and how near their images come."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clockwork.adaptors import Linear
from clockwork.errors import UserError
from clockwork.flops.counter import Flops
from clockwork.pipeline.enable import enable

QUALITIES = {"high": 35.0, "balanced": 28.0, "fast": 22.0}  # lowest PSNR to the images without Clockwork, in dB

COLUMNS = (
    "",
    "cut",
    "schedule",
    "time",
    "FLOPs (paper)",
    "FLOPs (full)",
    "error of r_out",
    "error of latents",
    "PSNR in dB",
)


@dataclass(frozen=True)
class MenuEntry:
    """One cut and schedule, with what was measured on prompts or images that the adaptor was not fitted on.

    Attributes:
        cut: Name of the cut.
        schedule: The schedule.
        adaptor: The adaptor that was fitted.
        flops: FLOPs of the UNet and the adaptor for one image or video.
        flops_without: FLOPs of the UNet without Clockwork.
        milliseconds: Median duration of a pipeline call for one image or video, without the decoder.
        milliseconds_without: That without Clockwork.
        relative_l2: Relative L2 distance of the latents to those without Clockwork.
        psnr: Mean PSNR of the images, or of the videos' frames, to those without Clockwork, in dB.
        images: The images, 8 bits, `prompts × 3 × height × width`; of videos, `prompts × frames × 3 × height × width`.
    """

    cut: str
    schedule: str
    adaptor: Linear
    flops: Flops
    flops_without: Flops
    milliseconds: float
    milliseconds_without: float
    relative_l2: float
    psnr: float
    images: Tensor

    @property
    def time_share(self) -> float:
        """Duration as a share of that without Clockwork."""
        return self.milliseconds / self.milliseconds_without

    @property
    def feature_error(self) -> float:
        """Relative L2 error of `r_out` after guidance, mean over the adaptor steps, on captions held out of the fit."""
        fits = (self.adaptor.calibration or {}).get("steps", [])
        return sum(fit["error"] for fit in fits) / max(len(fits), 1)

    def flops_share(self, convention: str) -> float:
        """Returns the FLOPs as a share of those without Clockwork.

        Args:
            convention: `paper` or `full`.
        """
        return float(getattr(self.flops, convention) / getattr(self.flops_without, convention))


@dataclass(frozen=True)
class Menu:
    """What the cuts and schedules cost, and how near they come.

    Attributes:
        entries: One per cut and schedule, the nearest first.
        prompts: The prompts that were measured; for a pipeline without prompts, its images by number.
        images: Their images without Clockwork, of the shape of an entry's.
        chosen: The entry that was enabled, if a budget or a quality was given.
        compile: Whether steps were compiled, as in `clockwork.enable`.
    """

    entries: tuple[MenuEntry, ...]
    prompts: tuple[str, ...]
    images: Tensor
    chosen: MenuEntry | None = None
    compile: bool | Mapping[str, Any] | None = None

    def use(self, pipe: Any, number: int) -> Linear:
        """Enables an entry.

        Args:
            pipe: The pipeline.
            number: Number of the entry in the table, from 1.

        Returns:
            The entry's adaptor, for `clockwork.save_adaptor`.

        Raises:
            UserError: If there is no such entry.
        """
        if not 1 <= number <= len(self.entries):
            raise UserError(f"the menu has no entry {number}: choose one from 1 to {len(self.entries)}")
        entry = self.entries[number - 1]
        enable(pipe, entry.schedule, entry.adaptor, entry.cut, compile=self.compile)
        return entry.adaptor

    def cells(self) -> list[tuple[str, ...]]:
        """Returns the table as text, one tuple per entry, in the order of `COLUMNS`."""
        return [
            (
                f"{number}{'*' if entry is self.chosen else ''}",
                entry.cut,
                entry.schedule,
                f"{entry.time_share:.0%}",
                f"{entry.flops_share('paper'):.0%}",
                f"{entry.flops_share('full'):.0%}",
                f"{entry.feature_error:.3f}",
                f"{entry.relative_l2:.3f}",
                f"{entry.psnr:.1f}",
            )
            for number, entry in enumerate(self.entries, 1)
        ]

    def __str__(self) -> str:
        rows = [COLUMNS, *self.cells()]
        widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        enabled = "; * is enabled" if self.chosen else ""
        return "\n".join([*lines, f"time and FLOPs are shares of those without Clockwork{enabled}"])
