"""One operating point → one row."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from clockwork.adaptors import adaptor_hash
from clockwork.data.image_io import squared
from clockwork.data.prompts import Prompt, prompts_hash
from clockwork.evaluation.generate import generate, pictures
from clockwork.evaluation.rows import Row, append_row, commit, read_rows, versions
from clockwork.flops.cost import image_flops
from clockwork.io import distributed as processes
from clockwork.io.atomic import atomic_write
from clockwork.io.fingerprint import digest
from clockwork.metrics.clip_score import clip_score
from clockwork.metrics.fid import FID
from clockwork.metrics.latency import latency_ms
from clockwork.metrics.similarity import psnr_and_ssim
from clockwork.sampling.sampler import Setup
from clockwork.schedule import Schedule
from clockwork.teachers.text_embedder import OpenCLIP


@dataclass(frozen=True)
class Metrics:
    """What to measure. `miniature` says that FID and CLIP score look through the small CLIP, and are named so; with
    `size` they see the pictures at that many pixels a side."""

    fid: FID | None = None
    clip: OpenCLIP | None = None
    latency: bool = True
    miniature: bool = False
    size: int | None = None

    @property
    def label(self) -> str:
        fid = [] if self.fid is None else [f"FID {self.fid.label}"]
        clip = [] if self.clip is None else [f"CLIP {self.clip.label}"]
        return "; ".join(fid + clip) or "none"

    def scores(
        self, batches: Callable[[], Iterable[Tensor]], captions: Sequence[str]
    ) -> tuple[float | None, float | None]:
        """FID and CLIP score of 8-bit batches in their captions' order; None where not measured."""
        fid = None if self.fid is None else self.fid(batches())
        return fid, None if self.clip is None else clip_score(self.clip, batches(), captions)


@dataclass(frozen=True)
class Evaluation:
    """The prompts, the metrics and the folder that a sweep's rows share."""

    prompts: Sequence[Prompt]
    metrics: Metrics
    folder: Path
    seed: int = 0
    batch_size: int = 32
    command: str | None = None  # what rows say they were made by

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    def digest(self, setup: Setup) -> str:
        """Of all that fixes the pictures and the metrics."""
        fixed = [asdict(setup.point), setup.adaptor_name, adaptor_hash(setup.adaptor)]
        return digest([*fixed, prompts_hash(self.prompts), self.seed, self.metrics.label])

    def pictures(self, setup: Setup) -> Path:
        """The folder with an operating point's pictures, painted as far as they are missing."""
        folder = self.folder / "pictures" / self.digest(setup)
        generate(setup, self.prompts, folder, self.seed, self.batch_size)
        return folder

    def evaluate(self, setup: Setup) -> None:
        """Appends the row, unless one with its digest is there. All processes paint, the first measures."""
        if self.digest(setup) in {row["digest"] for row in read_rows(self.rows)}:
            return
        for painter in (setup, _teacher_of(setup)):
            self.pictures(painter)
        processes.wait()
        if processes.rank() == 0:
            self._keep_prompts()
            append_row(self.rows, self.measure(setup))
        processes.wait()

    def _keep_prompts(self) -> None:
        """`prompts/<hash>.json` beside the rows, which hold the hash alone: ids and texts."""
        file = self.folder / "prompts" / f"{prompts_hash(self.prompts)}.json"
        if not file.is_file():
            with atomic_write(file) as partial:
                partial.write_text(json.dumps([(p.id, p.text) for p in self.prompts]))

    def _nearness(self, setup: Setup, folder: Path) -> tuple[float | None, float | None]:
        """PSNR and SSIM to the full teacher's pictures at the same steps; of the teacher itself, None."""
        if setup.adaptor is None:
            return None, None
        teacher = self.pictures(_teacher_of(setup))
        return psnr_and_ssim(zip(pictures(folder, self.prompts), pictures(teacher, self.prompts), strict=True))

    def _rated(self, folder: Path) -> Iterator[Tensor]:
        """The pictures as FID and CLIP score see them."""
        for batch in pictures(folder, self.prompts):
            size = self.metrics.size
            yield batch if size is None else torch.stack([squared(image, size) for image in batch])

    def measure(self, setup: Setup) -> Row:
        metrics, folder = self.metrics, self.pictures(setup)
        fid, score = metrics.scores(lambda: self._rated(folder), [p.text for p in self.prompts])
        psnr, ssim = self._nearness(setup, folder)
        flops, small = image_flops(setup), metrics.miniature
        first = self.prompts[0]
        return Row(
            digest=self.digest(setup),
            **asdict(setup.point),
            adaptor=setup.adaptor_name,
            adaptor_hash=adaptor_hash(setup.adaptor),
            full_steps=setup.schedule.full_steps(setup.calls),
            calls=setup.calls,
            prompts=prompts_hash(self.prompts),
            images=len(self.prompts),
            seed=self.seed,
            fid=None if small else fid,
            clip_score=None if small else score,
            fid_miniature=fid if small else None,
            clip_score_miniature=score if small else None,
            metrics=metrics.label,
            psnr=psnr,
            ssim=ssim,
            tflops_paper=flops.paper / 1e12,
            tflops_full=flops.full / 1e12,
            gmacs=flops.macs / 1e9,
            latency_ms=latency_ms(lambda: setup.latents([first.text], setup.teacher.noise([first.id])))
            if metrics.latency
            else None,
            device=str(setup.teacher.device),
            commit=commit(),
            versions=versions(),
            teacher_digest=self.digest(_teacher_of(setup)),
            command=self.command,
        )


def _teacher_of(setup: Setup) -> Setup:
    return replace(setup, adaptor=None, adaptor_name="none", schedule=Schedule())
