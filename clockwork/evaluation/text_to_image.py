"""Evaluation of text-to-image: one image per prompt."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from clockwork.data.image_io import images_at_once, write_image
from clockwork.data.prompts import Prompt, chunks, prompts_hash
from clockwork.errors import UserError
from clockwork.evaluation.generate import generate, image_file, read_batch, read_or_generate, rounds
from clockwork.evaluation.harness import Harness
from clockwork.evaluation.latencies import measure_latencies
from clockwork.evaluation.rows import FIELDS, ImageRow, append_row
from clockwork.flops.cost import image_flops
from clockwork.flops.counter import Flops
from clockwork.io import distributed
from clockwork.io.atomic import atomic_write
from clockwork.io.fingerprint import digest
from clockwork.io.progress import progress_bar
from clockwork.io.threads import THREADS, map_in_threads
from clockwork.metrics.base import Batch, require_images
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet

LARGEST_BATCH = 64  # images per batch of the metrics
SAMPLE = 64  # images that `keep_images="sample"` writes


@dataclass(frozen=True, kw_only=True)
class Evaluation(Harness[Sampler]):
    """Measures samplers on prompts.

    Attributes:
        prompts: One image is generated per prompt.
        seed: Seed of the noise, together with the prompt's id.
        batch_size: Largest number of images that are generated at once (see `images_at_once`).
        fit: Seed of the fits of adaptors with weights, which rows record; None if it is not known.
        latency: Whether `evaluate` measures the latency on this device, too.
        keep_images: Which images are written to disk: all; those of the full teacher; a sample of the first 64 of each
            point; or none. Others go from the decoder to the metrics. The full teacher's, with which metrics compare,
            are then generated again for every point.

    Raises:
        UserError: There are fewer prompts than a metric needs.
    """

    prompts: Sequence[Prompt]
    seed: int = 0
    batch_size: int = 50
    fit: int | None = None
    latency: bool = True
    keep_images: Literal["all", "teacher", "sample", "none"] = "all"

    def __post_init__(self) -> None:
        if not self.prompts:
            raise UserError("there are no prompts to measure: raise prompts.count")
        require_images(self.metrics, len(self.prompts), "raise prompts.count, or leave the metric out")

    def images_digest(self, point: Sampler) -> str:
        return digest([point.identity(), prompts_hash(self.prompts), self.seed])

    def adaptor_names(self, point: Sampler) -> list[str]:
        return [point.adaptor_name]

    def generate(self, point: Sampler) -> Path:
        """Generates the images that are missing, and those of the full teacher at the same steps if metrics read them.

        Images that are not kept are left to `batches`.

        Args:
            point: The operating point.

        Returns:
            The folder of its images.
        """
        folder = self.image_folder(point)
        if self._keeps_all(point):
            generate(point, self.prompts, folder, self.seed, self.batch_size)
        if not point.is_full_teacher and any("teacher_images" in metric.info.inputs for metric in self.metrics):
            self.generate(full_teacher(point))
        return folder

    def _keeps_all(self, point: Sampler) -> bool:
        """Whether all images of a point are written to disk."""
        return self.keep_images == "all" or (self.keep_images == "teacher" and point.is_full_teacher)

    def num_written(self, point: Sampler, count: int) -> int:
        """Returns how many of the images of a point are written to disk, at most.

        Args:
            point: The operating point.
            count: Number of its images that are generated.
        """
        if self._keeps_all(point):
            return count
        return min(count, SAMPLE) if self.keep_images == "sample" else 0

    def inputs(self, point: Sampler) -> set[str]:
        return {"images", "captions"} | (set() if point.is_full_teacher else {"teacher_images"})

    def batches(self, point: Sampler, needed: set[str]) -> Iterator[Batch]:
        return self._read(point, needed) if self._keeps_all(point) else self._generated(point, needed)

    def _generated(self, point: Sampler, needed: set[str]) -> Iterator[Batch]:
        """Generates this process's images, in the batches of `generate`, and writes no more than a sample."""
        teacher, total = full_teacher(point), len(self.prompts)
        folder, teacher_folder = self.image_folder(point), self.image_folder(teacher)
        sample = set(self.prompts[:SAMPLE] if self.keep_images == "sample" else [])
        at_once = images_at_once(point.teacher.resolution, self.batch_size)
        with progress_bar(
            total=total, desc=f"{point.adaptor_name} {point.schedule} {point.steps} steps", unit="image"
        ) as bar:
            for prompts in rounds(self.prompts, at_once):
                images = read_or_generate(point, prompts, folder, self.seed)
                for prompt, image in zip(prompts, images, strict=True):
                    if prompt in sample:
                        write_image(image_file(folder, prompt), image)
                teacher_images = None
                if "teacher_images" in needed:
                    teacher_images = read_or_generate(teacher, prompts, teacher_folder, self.seed)
                ids = [str(prompt.id) for prompt in prompts]
                yield Batch(images, [prompt.text for prompt in prompts], teacher_images, ids=ids)
                bar.update(min(len(prompts) * distributed.world_size(), total - bar.n))

    def _read(self, point: Sampler, needed: set[str]) -> Iterator[Batch]:
        """Reads this process's images."""
        images, teacher_images = self.image_folder(point), self.image_folder(full_teacher(point))
        batches = list(chunks(distributed.share(self.prompts), self._at_once(point)))
        sizes = {metric.size for metric in self.metrics}

        def read(prompts: Sequence[Prompt]) -> Batch:
            batch = Batch(
                read_batch(images, prompts),
                [prompt.text for prompt in prompts],
                read_batch(teacher_images, prompts) if "teacher_images" in needed else None,
                ids=[str(prompt.id) for prompt in prompts],
            )
            for size in sizes:  # here, in a thread
                batch.images_at(size)
            return batch

        batches_read = map_in_threads(read, batches, ahead=THREADS)
        yield from progress_bar(batches_read, "metrics", len(batches), leave=False, unit="batch")

    def _at_once(self, point: Sampler) -> int:
        """Returns the number of images per batch of the metrics."""
        return images_at_once(point.teacher.resolution, LARGEST_BATCH)

    def row(self, point: Sampler, shared: dict[str, Any]) -> ImageRow:
        teacher = full_teacher(point)
        return ImageRow(
            **shared,
            **{name: value for name, value in asdict(point.point).items() if name in FIELDS},
            text_embedder=point.text_embedder,
            adaptor=point.adaptor_name,
            adaptor_hash=point.adaptor_hash,
            full_steps=point.schedule.full_steps(point.num_unet_calls),
            calls=point.num_unet_calls,
            prompts=prompts_hash(self.prompts),
            images=len(self.prompts),
            seed=self.seed,
            teacher_digest=self.digest(teacher),
            teacher_images_digest=self.images_digest(teacher),
            fit=self._fit(point),
        )

    def _fit(self, point: Sampler) -> int | None:
        """Returns the seed of a point's fit; None for adaptors without weights."""
        return self.fit if point.adaptor is not None and point.adaptor.has_weights else None

    def flops(self, point: Sampler) -> Flops:
        return image_flops(point)

    def teacher(self, point: Sampler) -> Teacher:
        return point.teacher

    def evaluate(self, point: Sampler) -> None:
        """Appends the row unless there is one, then its latency on this device unless it has that.

        Args:
            point: The operating point.
        """
        super().evaluate(point)
        if distributed.rank() == 0:
            self._save_prompts()
            row, fit = self.find_row(point), self._fit(point)
            if row is not None and fit is not None and row.get("fit") != fit:  # measured without `fits`
                append_row(self.rows, {**row, "fit": fit})
        if self.latency:
            measure_latencies([(self, point)])

    def one_image(self, point: Sampler) -> Callable[[], None]:
        """Returns a function that generates the latents of the first prompt, on the main process only.

        Args:
            point: The operating point.
        """
        first = self.prompts[0]
        conditions, noise = point.conditions([first.text]), point.teacher.noise([first.id], self.seed)

        def run() -> None:
            if distributed.rank() == 0:
                point.latents_of(conditions, noise)

        return run

    def _save_prompts(self) -> None:
        """Writes ids, texts and categories of the prompts to `prompts/<hash>.json`, as rows hold the hash alone."""
        file = self.folder / "prompts" / f"{prompts_hash(self.prompts)}.json"
        content = json.dumps([[p.id, p.text, *([] if p.category is None else [p.category])] for p in self.prompts])
        if not file.is_file() or len(file.read_text()) < len(content):  # written without categories
            with atomic_write(file) as partial:
                partial.write_text(content)


def full_teacher(point: Sampler) -> Sampler:
    """Returns the sampler of the full teacher at the same steps, without adaptor, clock and rival.

    Args:
        point: A sampler.
    """
    if point.is_full_teacher:
        return point
    split = point.split
    with suppress(UserError):  # of a UNet that is too small for this cut
        split = SplitUNet(split.unet, "stage1")  # all cuts give the same images, which are generated once
    alone = replace(point, split=split, adaptor=None, rival=None, schedule=Schedule())
    return replace(alone, adaptor_name="none", trained_hash=None)
