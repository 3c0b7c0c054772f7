"""Evaluation of editing: one image per pair of prompts of a benchmark. A stopped run continues where it stopped."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from clockwork.data.image_files import read_image
from clockwork.data.image_io import write_image
from clockwork.data.prompts import chunks
from clockwork.editing.benchmark import EditPair, pairs_hash
from clockwork.editing.edit import Editor
from clockwork.editing.inversion import LatentsOnDisk, read_latents, save_latents
from clockwork.evaluation.harness import Harness
from clockwork.evaluation.rows import EditRow
from clockwork.flops.counter import Flops
from clockwork.io import distributed
from clockwork.io.fingerprint import digest
from clockwork.io.progress import progress_bar
from clockwork.metrics.base import Batch
from clockwork.teachers import Teacher


@dataclass(frozen=True, kw_only=True)
class EditEvaluation(Harness[Editor]):
    """Measures editors on a benchmark. The pairs of one source image stay on one process.

    Attributes:
        benchmark: Name of the benchmark.
        pairs: Its pairs; those of one source image are consecutive.
        latents: Folder that keeps inversions for all rows that need the same; None to keep none.
    """

    benchmark: str
    pairs: Sequence[EditPair]
    latents: Path | None = None

    @cached_property
    def pairs_hash(self) -> str:
        """Hash of prompts and source images."""
        return pairs_hash(self.pairs)

    @cached_property
    def groups(self) -> list[list[EditPair]]:
        """The pairs of each source image."""
        return [list(group) for _, group in groupby(self.pairs, lambda pair: pair.image_id)]

    def images_digest(self, point: Editor) -> str:
        return digest([point.identity(), self.pairs_hash])

    def adaptor_names(self, point: Editor) -> list[str]:
        return [point.inversion.adaptor_name, point.generation.adaptor_name]

    def inputs(self, point: Editor) -> set[str]:
        inputs = {"images", "captions", "source_images", "reconstructions", "autoencoded"}
        return inputs | ({"ground_truth"} if all(pair.ground_truth is not None for pair in self.pairs) else set())

    def generate(self, point: Editor) -> Path:
        """Generates one image per pair, and the reconstruction of each source image if a metric reads it.

        Processes wait for each other after each source image, so that none waits long for another.

        Args:
            point: The operating point.

        Returns:
            The folder of the images.
        """
        folder = self.image_folder(point)
        folder.mkdir(parents=True, exist_ok=True)
        missing = distributed.from_main_process([bool(self._missing_files(folder, group)) for group in self.groups])
        groups = [group for group, is_missing in zip(self.groups, missing, strict=True) if is_missing]
        done = len(self.pairs) - sum(map(len, groups))
        with progress_bar(
            total=len(self.pairs), initial=done, desc=f"{self.benchmark}, {point.label}", unit="edit"
        ) as bar:
            for round_of_groups in chunks(groups, distributed.world_size()):
                for group in distributed.share(round_of_groups):
                    self._edit(point, folder, group)
                distributed.barrier()
                bar.update(sum(map(len, round_of_groups)))
        return folder

    def _missing_files(self, folder: Path, group: Sequence[EditPair]) -> list[Path]:
        """Lists the files of a source image that were not written yet."""
        files = [_edit_file(folder, pair) for pair in group]
        if any("reconstructions" in metric.info.inputs for metric in self.metrics):
            files.append(_reconstruction_file(folder, group[0]))
        return [file for file in files if not file.is_file()]

    def _edit(self, point: Editor, folder: Path, group: Sequence[EditPair]) -> None:
        """Writes the missing files of a source image."""
        missing = self._missing_files(folder, group)
        pairs = [pair for pair in group if _edit_file(folder, pair) in missing]
        latents = self._inverted(point, group[0])
        features = point.record(latents) if point.replay and pairs else None
        for pair in pairs:
            write_image(_edit_file(folder, pair), point.edit(latents, pair.target, features))
        reconstruction = _reconstruction_file(folder, group[0])
        if reconstruction in missing:
            write_image(reconstruction, point.reconstruct(latents, group[0].source))

    def _inverted(self, point: Editor, pair: EditPair) -> Mapping[int, Tensor]:
        """Inverts a source image, or reads its inversion from `latents`."""
        if self.latents is None:
            return point.invert(pair.image(), pair.source)
        file = self.latents / f"{digest([point.inversion.identity(), pairs_hash([pair]), point.visited])}.safetensors"
        if (kept := read_latents(file)) is not None:
            return kept
        save_latents(file, point.invert(pair.image(), pair.source))
        return LatentsOnDisk(file)

    def batches(self, point: Editor, needed: set[str]) -> Iterator[Batch]:
        folder, teacher = self.image_folder(point), self.teacher(point)
        for group in distributed.share(self.groups):
            source = group[0].image()[None]
            shared = {
                "source_images": source,
                "reconstructions": _read(_reconstruction_file(folder, group[0]), "reconstructions" in needed),
                "autoencoded": teacher.decode(teacher.encode_images(source)) if "autoencoded" in needed else None,
            }
            for pair in group:
                truth = pair.ground_truth()[None] if pair.ground_truth is not None else None
                image = read_image(_edit_file(folder, pair))[None]
                yield Batch(image, [pair.target], ground_truth=truth, ids=[pair.id], **shared)

    def row(self, point: Editor, shared: dict[str, Any]) -> EditRow:
        return EditRow(
            **shared,
            **point.columns(),
            text_embedder=point.text_embedder,
            benchmark=self.benchmark,
            pairs=len(self.pairs),
            pairs_hash=self.pairs_hash,
        )

    def flops(self, point: Editor) -> Flops:
        return point.flops(len(self.pairs) // len({pair.image_id for pair in self.pairs}))

    def teacher(self, point: Editor) -> Teacher:
        return point.generation.teacher


def _edit_file(folder: Path, pair: EditPair) -> Path:
    """Returns the file of an edited image."""
    return folder / f"{pair.id}.png"


def _reconstruction_file(folder: Path, pair: EditPair) -> Path:
    """Returns the file of a reconstructed source image."""
    return folder / f"{pair.image_id}-reconstruction.png"


def _read(file: Path, needed: bool) -> Tensor | None:
    """Reads an image if it is needed, 8-bit, `1 × 3 × height × width`."""
    return read_image(file)[None] if needed else None
