"""One operating point → one row."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from clockwork.data.image_io import images_at_once, read_image, squared
from clockwork.data.prompts import Prompt, chunks, prompts_hash
from clockwork.errors import UserError
from clockwork.evaluation.generate import generate, image_file
from clockwork.evaluation.rows import Row, append_row, commit, image_folder, read_rows, versions
from clockwork.evaluation.scores import Metrics, Scores
from clockwork.flops.cost import image_flops
from clockwork.io import distributed
from clockwork.io.atomic import atomic_write
from clockwork.io.fingerprint import digest
from clockwork.io.threads import THREADS, map_in_threads
from clockwork.metrics.latency import device_name, measure_latency
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule

__all__ = ["Evaluation", "Metrics"]


@dataclass(frozen=True)
class Evaluation:
    """The prompts, the metrics and the folder that a sweep's rows share.

    Args:
        prompts: An image each.
        metrics: What to measure.
        folder: Of `rows.jsonl`, `prompts` and `pictures`.
        seed: Of the noise, with the prompt's id.
        batch_size: Images generated at once, at most (`images_at_once`).
        command: What rows are recorded to be made by.
    """

    prompts: Sequence[Prompt]
    metrics: Metrics
    folder: Path
    seed: int = 0
    batch_size: int = 50
    command: str | None = None

    def __post_init__(self) -> None:
        least = 1 if self.metrics.fid is None else 2
        if len(self.prompts) < least:
            raise UserError(f"{len(self.prompts)} prompts are too few to measure: raise prompts.count")

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    def images_digest(self, sampler: Sampler) -> str:
        """Of everything that changes the images, which their folder is named by: other metrics measure the same."""
        return digest([sampler.identity(), prompts_hash(self.prompts), self.seed])

    def digest(self, sampler: Sampler) -> str:
        """Of everything that changes the row's figures, and of the adaptor's name. Not of latency, which belongs to a
        device."""
        return digest([self.images_digest(sampler), sampler.adaptor_name, self.metrics.identity])

    def pictures(self, sampler: Sampler) -> Path:
        """The folder with an operating point's images, generated as far as they are missing."""
        folder = image_folder(self.folder, {"images_digest": self.images_digest(sampler)})
        generate(sampler, self.prompts, folder, self.seed, self.batch_size)
        return folder

    def evaluate(self, sampler: Sampler) -> None:
        """Appends the row, unless one with its digest is there; then its latency on this device, if that is wanted and
        not there. All processes generate and measure, the main one writes."""
        (measured,) = distributed.from_main_process([self._row(sampler) is not None])
        if not measured:
            row = self.measure(sampler)
            if distributed.rank() == 0:
                self._keep_prompts()
                append_row(self.rows, asdict(row))
        if self.metrics.latency:
            self._time(sampler)

    def measure(self, sampler: Sampler) -> Row:
        """Everything but latency; all processes have to call it, and get the same figures."""
        flops = image_flops(sampler)
        return Row(
            digest=self.digest(sampler),
            **asdict(sampler.point),
            adaptor=sampler.adaptor_name,
            adaptor_hash=sampler.adaptor_hash,
            full_steps=sampler.schedule.full_steps(sampler.num_unet_calls),
            calls=sampler.num_unet_calls,
            prompts=prompts_hash(self.prompts),
            images=len(self.prompts),
            seed=self.seed,
            **self._figures(sampler),
            metrics=self.metrics.label,
            tflops_paper=flops.paper / 1e12,
            tflops_full=flops.full / 1e12,
            gmacs=flops.macs / 1e9,
            device=str(sampler.teacher.device),
            commit=commit(),
            versions=versions(),
            teacher_digest=self.digest(_teacher_of(sampler)),
            command=self.command,
            precision=sampler.teacher.precision,
            text_embedder=sampler.text_embedder,
            images_digest=self.images_digest(sampler),
            teacher_images_digest=self.images_digest(_teacher_of(sampler)),
        )

    def _figures(self, sampler: Sampler) -> dict[str, Any]:
        """FID, CLIP score, and PSNR and SSIM to the full teacher's images at the same steps, from one reading of each
        image; of the teacher itself no PSNR and SSIM."""
        ours, teachers = self.pictures(sampler), None
        if sampler.adaptor is not None:
            teachers = self.pictures(_teacher_of(sampler))
        scores = Scores(self.metrics, sampler.teacher.device)
        at_once = images_at_once(sampler.teacher.resolution, 64)
        batches = list(chunks(distributed.share(self.prompts), at_once))

        def read(batch: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor | None, list[str]]:
            images = _read(ours, batch)
            compared = None if teachers is None else _read(teachers, batch)
            return images, self._rated(images), compared, [prompt.text for prompt in batch]

        images_read = map_in_threads(read, batches, ahead=THREADS)
        bar = tqdm(images_read, "metrics", len(batches), leave=False, unit="batch", disable=distributed.rank() > 0)
        for images, rated, compared, captions in bar:
            scores.update(rated, captions)
            if compared is not None:
                scores.compare(images, compared)
        return scores.compute(similarity=teachers is not None)

    def _rated(self, images: Tensor) -> Tensor:
        """The images as FID and CLIP score see them."""
        size = self.metrics.size
        return images if size is None else torch.stack([squared(image, size) for image in images])

    def _time(self, sampler: Sampler) -> None:
        """Adds the latency of one image's latents, if the row has none of this device: to the row, whose other figures
        stay. Only the main process computes; the others wait after every run."""
        name, row = device_name(sampler.teacher.device), self._row(sampler)
        (timed,) = distributed.from_main_process([row is not None and row.get("latency_device") == name])
        if timed:
            return
        first = self.prompts[0]
        conditions, noise = sampler.conditions([first.text]), sampler.teacher.noise([first.id], self.seed)

        def run() -> None:
            if distributed.rank() == 0:
                sampler.latents_of(conditions, noise)

        latency = measure_latency(run, sampler.teacher.device, after_run=distributed.barrier)
        if distributed.rank() == 0 and row is not None:
            append_row(self.rows, {**row, **asdict(latency)})

    def _row(self, sampler: Sampler) -> dict[str, Any] | None:
        wanted = self.digest(sampler)
        return next((row for row in read_rows(self.rows) if row["digest"] == wanted), None)

    def _keep_prompts(self) -> None:
        """`prompts/<hash>.json` beside the rows, which hold the hash alone: ids and texts."""
        file = self.folder / "prompts" / f"{prompts_hash(self.prompts)}.json"
        if not file.is_file():
            with atomic_write(file) as partial:
                partial.write_text(json.dumps([(p.id, p.text) for p in self.prompts]))


def _read(folder: Path, prompts: Sequence[Prompt]) -> Tensor:
    return torch.stack([read_image(image_file(folder, prompt)) for prompt in prompts])


def _teacher_of(sampler: Sampler) -> Sampler:
    return replace(sampler, adaptor=None, adaptor_name="none", schedule=Schedule(), trained_hash=None)
