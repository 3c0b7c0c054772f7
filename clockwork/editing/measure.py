"""An editor on a benchmark → pictures → metrics → a row; a killed run goes on where it stopped."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from clockwork.data.image_io import read_image, write_image
from clockwork.editing.benchmark import EditPair, pairs_hash
from clockwork.editing.edit import Editor
from clockwork.editing.inversion import LatentsOnDisk, save_latents
from clockwork.editing.rows import Row
from clockwork.evaluation.rows import append_row, commit, image_folder, read_rows, versions
from clockwork.io.device import choose_device
from clockwork.io.fingerprint import digest
from clockwork.metrics.clip_score import clip_score
from clockwork.metrics.similarity import psnr_and_ssim
from clockwork.metrics.structure import Structure
from clockwork.teachers import Teacher
from clockwork.teachers.text_embedder import OpenCLIP


@dataclass(frozen=True)
class Metrics:
    """What to measure; `miniature` says that the small CLIP stands in for CLIP and DINO, and rows name it so."""

    clip: OpenCLIP | None = None
    structure: Structure | None = None
    reconstruction: bool = False  # the source prompt alone, from the inversion's last latent
    miniature: bool = False

    @property
    def label(self) -> str:
        clip = [] if self.clip is None else [f"CLIP {self.clip.label}"]
        structure = [] if self.structure is None else [f"structure {self.structure.label}"]
        return "; ".join(clip + structure + ["reconstruction"] * self.reconstruction) or "none"

    @property
    def identity(self) -> list[str | None]:
        """Everything about them that changes a figure."""
        return [self.label, None if self.clip is None else self.clip.identity]


@dataclass(frozen=True)
class Measurement:
    """The benchmark, the metrics and the folder that a sweep's rows share; inversions are kept in `latents`, if given,
    for every row that makes the same ones."""

    benchmark: str
    pairs: Sequence[EditPair]
    metrics: Metrics
    folder: Path
    latents: Path | None = None

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    def images_digest(self, editor: Editor) -> str:
        """Of everything that changes the images, which their folder is named by: other metrics measure the same."""
        return digest([editor.identity(), pairs_hash(self.pairs)])

    def digest(self, editor: Editor) -> str:
        """Of everything that changes the row's figures, and of the adaptors' names."""
        names = [sampler.adaptor_name for sampler in (editor.inversion, editor.generation)]
        return digest([self.images_digest(editor), names, self.metrics.identity])

    def measure(self, editor: Editor) -> None:
        """Appends the row, unless one with its digest is there."""
        if self.digest(editor) in {row["digest"] for row in read_rows(self.rows)}:
            return
        folder = image_folder(self.folder, {"images_digest": self.images_digest(editor)})
        self._paint(editor, folder)
        append_row(self.rows, asdict(self._row(editor, folder)))

    def _paint(self, editor: Editor, folder: Path) -> None:
        """One PNG a pair, and one a reconstruction; those already there are kept."""
        folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=len(self.pairs), desc=f"{self.benchmark}, {editor.label}", unit="edit") as bar:
            for image_id, group in groupby(self.pairs, lambda pair: pair.image_id):
                pairs = list(group)
                missing = [pair for pair in pairs if not (folder / f"{pair.id}.png").is_file()]
                again = folder / f"{image_id}-reconstruction.png"
                lacking = self.metrics.reconstruction and not again.is_file()
                if missing or lacking:
                    latents = self._inverted(editor, pairs[0])
                    features = editor.record(latents) if editor.replay and missing else None
                    for pair in missing:
                        write_image(folder / f"{pair.id}.png", editor.edit(latents, pair.target, features))
                    if lacking:
                        write_image(again, editor.reconstruct(latents, pairs[0].source))
                bar.update(len(pairs))

    def _inverted(self, editor: Editor, pair: EditPair) -> Mapping[int, Tensor]:
        if self.latents is None:
            return editor.invert(pair.picture(), pair.source)
        sampler = editor.inversion
        made = [sampler.identity(), pairs_hash([pair]), editor.visited]
        file = self.latents / f"{digest(made)}.safetensors"
        if not file.is_file():
            save_latents(file, editor.invert(pair.picture(), pair.source))
        return LatentsOnDisk(file)

    def _psnr(self, folder: Path, name: str, theirs: str) -> float | None:
        """Of every pair's picture by that name to the pair's own `picture` or `right` one."""
        if any(getattr(pair, theirs) is None for pair in self.pairs):
            return None
        read = ((read_image(folder / name.format(pair)), getattr(pair, theirs)()) for pair in self.pairs)
        return psnr_and_ssim((ours[None], right[None]) for ours, right in read)[0]

    def _edited(self, folder: Path) -> Iterator[tuple[EditPair, Tensor]]:
        for pair in self.pairs:
            yield pair, read_image(folder / f"{pair.id}.png")[None]

    def _scores(self, folder: Path) -> dict[str, Any]:
        """What the metrics say of the edits; the small CLIP's are named so."""
        metrics, score, distance = self.metrics, None, None
        if metrics.clip is not None:
            targets = [pair.target for pair in self.pairs]
            score = clip_score(metrics.clip, (image for _, image in self._edited(folder)), targets)
        if metrics.structure is not None:
            distance = metrics.structure((image, pair.picture()[None]) for pair, image in self._edited(folder))
        real, small = ((None, None), (score, distance)) if metrics.miniature else ((score, distance), (None, None))
        names = ("clip_score", "dino_distance", "clip_score_miniature", "structure_miniature")
        return dict(zip(names, (*real, *small), strict=True))

    def _nearness(self, teacher: Teacher, folder: Path) -> dict[str, Any]:
        """PSNRs: to the right answer where it is known, and of the reconstruction."""
        unedited = again = autoencoder = None
        if all(pair.right is not None for pair in self.pairs):
            unedited = psnr_and_ssim((p.picture()[None], p.right()[None]) for p in self.pairs if p.right)[0]
        if self.metrics.reconstruction:
            again = self._psnr(folder, "{0.image_id}-reconstruction.png", "picture")
            sources = (pair.picture()[None] for pair in self.pairs)
            autoencoder = psnr_and_ssim((teacher.decode(teacher.encode_images(p)), p) for p in sources)[0]
        return {
            "psnr_right": self._psnr(folder, "{0.id}.png", "right"),
            "psnr_unedited": unedited,
            "psnr_reconstruction": again,
            "psnr_autoencoder": autoencoder,
        }

    def _row(self, editor: Editor, folder: Path) -> Row:
        flops = editor.flops(len(self.pairs) // len({pair.image_id for pair in self.pairs}))
        return Row(
            digest=self.digest(editor),
            benchmark=self.benchmark,
            pairs=len(self.pairs),
            pairs_hash=pairs_hash(self.pairs),
            **editor.columns(),
            **self._scores(folder),
            **self._nearness(editor.generation.teacher, folder),
            metrics=self.metrics.label,
            tflops_paper=flops.paper / 1e12,
            tflops_full=flops.full / 1e12,
            gmacs=flops.macs / 1e9,
            device=str(editor.generation.teacher.device),
            commit=commit(),
            versions=versions(),
            precision=editor.generation.teacher.precision,
            text_embedder=editor.text_embedder,
            images_digest=self.images_digest(editor),
        )


def real(
    clip: str = "ViT-g-14",
    clip_tag: str | None = "laion2b_s34b_b88k",
    dino: str = "vit_base_patch8_224.dino",
    reconstruction: bool = False,
    device: str = "auto",
) -> Metrics:
    """CLIP score through an open_clip model, structure distance through a DINO ViT: the paper's."""
    from clockwork.metrics import structure

    return Metrics(OpenCLIP(clip, clip_tag, choose_device(device)), structure.dino(dino, device), reconstruction)
