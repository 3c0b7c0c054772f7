"""Cost of an evaluation, computed before it starts, and compared with what it took."""

import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from clockwork.data.prompts import Prompt
from clockwork.evaluation.generate import image_file
from clockwork.evaluation.text_to_image import Evaluation, full_teacher
from clockwork.flops.cost import image_flops
from clockwork.io.units import duration, with_prefix
from clockwork.sampling.sampler import Sampler

TRIAL_IMAGES = 2
SHORT_TRIAL = 30.0  # seconds


@dataclass(frozen=True)
class Trial:
    """What two images took.

    Attributes:
        flops_per_second: FLOPs of the UNet and the adaptor per second, decoding included in the time.
        bytes_per_image: Size of an image's file.
    """

    flops_per_second: float
    bytes_per_image: float


@dataclass(frozen=True)
class EvaluationPlan:
    """Cost of an evaluation, summed over the processes. FLOPs are in the convention `full` (docs/flops.md).

    Attributes:
        rows: Number of rows to measure.
        images: Number of images to generate, those of the full teacher included.
        unet_passes: Passes of the full UNet at batch 1; guidance counts as two.
        flops: FLOPs of these images.
        seconds: Time to generate them; None without a trial.
        disk_bytes: Size of their files; None without a trial.
        note: What the numbers leave out.
    """

    rows: int
    images: int
    unet_passes: int
    flops: int
    seconds: float | None
    disk_bytes: float | None
    note: str = "metrics come on top"

    def __str__(self) -> str:
        """Formats the plan as a table of label, value and note."""
        lines = [
            ("rows to measure", f"{self.rows:,}", ""),
            ("images to generate", f"{self.images:,}", "the full teacher's included"),
            ("full UNet passes", f"{self.unet_passes:,}", f"{with_prefix(self.flops, 'FLOPs')} with the adaptors"),
        ]
        if self.seconds is not None and self.disk_bytes is not None:
            lines.append(("time", duration(self.seconds), f"by a trial of {TRIAL_IMAGES} images; {self.note}"))
            lines.append(("disk", with_prefix(self.disk_bytes, "B", 1024), "images"))
        return "\n".join(f"{name:20} {value:>16}  {note}".rstrip() for name, value, note in lines)

    def outcome(self, seconds: float, images: int, disk_bytes: int) -> str:
        """Compares the plan with what the evaluation took.

        Args:
            seconds: Its time.
            images: Number of images that it generated.
            disk_bytes: Size of their files.
        """
        planned = "" if self.seconds is None else f" (planned: {duration(self.seconds)}, {self.note})"
        size = with_prefix(disk_bytes, "B", 1024)
        return f"took {duration(seconds)}{planned}; {images:,} of {self.images:,} planned images, {size} on disk"


def missing_images(evaluation: Evaluation, point: Sampler) -> dict[Path, tuple[Sampler, int]]:
    """Counts the images that an evaluation of an operating point would generate.

    Args:
        evaluation: The evaluation.
        point: The operating point.

    Returns:
        What generates them and their number, by the folder to which they are written; nothing if there is a row.
    """
    if evaluation.find_row(point) is not None:
        return {}
    compared = any("teacher_images" in metric.info.inputs for metric in evaluation.metrics)
    counts = {}
    for sampler in dict.fromkeys((point, full_teacher(point))) if compared else (point,):
        folder = evaluation.image_folder(sampler)
        missing = sum(not image_file(folder, prompt).is_file() for prompt in evaluation.prompts)
        counts[folder] = (sampler, missing)
    return counts


def run_trial(sampler: Sampler, prompts: Sequence[Prompt], seed: int = 0) -> Trial:
    """Generates two images, which are not kept. A short trial is repeated: the first also loads and prepares kernels.

    Args:
        sampler: What generates.
        prompts: Prompts, of which the first two are used.
        seed: Of the noise.
    """
    chosen = prompts[:TRIAL_IMAGES]
    ids = [prompt.id for prompt in chosen]

    def generate() -> tuple[torch.Tensor, float]:
        start = time.perf_counter()
        latents = sampler.latents([prompt.text for prompt in chosen], sampler.teacher.noise(ids, seed))
        return sampler.teacher.decode(latents).cpu(), time.perf_counter() - start

    images, seconds = generate()
    if seconds < SHORT_TRIAL:
        images, seconds = generate()
    content = io.BytesIO()
    for image in images:
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(content, format="PNG")
    return Trial(len(ids) * image_flops(sampler).full / seconds, len(content.getvalue()) / len(ids))


def evaluation_plan(
    work: Sequence[tuple[Sampler, int]],
    rows: int,
    trial: Trial | None,
    world_size: int = 1,
    note: str = "",
    written: int | None = None,
) -> EvaluationPlan:
    """Plans an evaluation.

    Args:
        work: What generates images, and how many.
        rows: Number of rows to measure.
        trial: What two images took, if the plan is to tell time and disk.
        world_size: Number of processes.
        note: What the time leaves out, besides the metrics.
        written: Number of images that are written to disk; None for all.

    Returns:
        The plan.
    """
    unet_passes = sum(count * _unet_passes(sampler) for sampler, count in work)
    flops = sum(count * image_flops(sampler).full for sampler, count in work)
    images = sum(count for _, count in work)
    seconds = None if trial is None else flops / trial.flops_per_second / world_size
    disk = None if trial is None else (images if written is None else written) * trial.bytes_per_image
    return EvaluationPlan(rows, images, unet_passes, flops, seconds, disk, *([note] if note else []))


def disk_usage(folders: Iterable[Path]) -> tuple[int, int]:
    """Counts the images in folders, and their bytes.

    Args:
        folders: The folders, which may not exist.

    Returns:
        Number and size of the files.
    """
    sizes = [file.stat().st_size for folder in folders for file in folder.glob("*.png")]
    return len(sizes), sum(sizes)


def _unet_passes(sampler: Sampler) -> int:
    """Returns the passes of the full UNet of one image; guidance counts as two."""
    full_steps = sampler.schedule.full_steps(sampler.num_unet_calls)
    return full_steps * sampler.teacher.unet_calls_per_step(sampler.guidance)
