"""What is measured of images, in one pass over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clockwork.metrics.clip_score import CLIPScore
from clockwork.metrics.fid import FID
from clockwork.metrics.similarity import Similarity
from clockwork.teachers.text_embedder import OpenCLIP


@dataclass(frozen=True)
class Metrics:
    """What to measure.

    Args:
        fid: FID to a reference; None: not measured.
        clip: The model of the CLIP score; None: not measured.
        latency: Whether latency is measured, after the images.
        miniature: Whether FID and CLIP score look through the small CLIP, and are named so.
        size: Pixels per side at which FID and CLIP score see the images; None: their own.
    """

    fid: FID | None = None
    clip: OpenCLIP | None = None
    latency: bool = True
    miniature: bool = False
    size: int | None = None

    @property
    def label(self) -> str:
        """How a row describes them."""
        fid = [] if self.fid is None else [f"FID {self.fid.label}"]
        clip = [] if self.clip is None else [f"CLIP {self.clip.label}"]
        return "; ".join(fid + clip) or "none"

    @property
    def identity(self) -> list[str | None]:
        """Everything about them that changes a figure."""
        return [self.label, None if self.clip is None else self.clip.identity]


class Scores:
    """Running sums of every metric over the images of all processes.

    Args:
        metrics: What to measure.
        similarity_on: The device of PSNR and SSIM.
    """

    def __init__(self, metrics: Metrics, similarity_on: torch.device | str = "cpu") -> None:
        self._fid, self._miniature = metrics.fid, metrics.miniature
        self._clip = None if metrics.clip is None else CLIPScore(metrics.clip)
        self._similarity = Similarity(similarity_on)
        if self._fid is not None:
            self._fid.reset()

    def update(self, images: Tensor, captions: Sequence[str]) -> None:
        """Adds 8-bit images `batch × 3 × height × width`, as FID and CLIP score see them, and their captions."""
        if self._fid is not None:
            self._fid.update(images)
        if self._clip is not None:
            self._clip.update(images, captions)

    def compare(self, images: Tensor, teachers: Tensor) -> None:
        """Adds 8-bit images and the teacher's of the same prompts and seed."""
        self._similarity.update(images, teachers)

    def compute(self, similarity: bool = False) -> dict[str, float | None]:
        """The figures by their names in rows; None: not measured. All processes have to call it.

        Args:
            similarity: Whether images were compared with the teacher's.
        """
        fid = None if self._fid is None else self._fid.compute()
        clip = None if self._clip is None else self._clip.compute()
        psnr, ssim = self._similarity.compute() if similarity else (None, None)
        here, not_here = ("_miniature", "") if self._miniature else ("", "_miniature")
        return {
            f"fid{here}": fid,
            f"clip_score{here}": clip,
            f"fid{not_here}": None,
            f"clip_score{not_here}": None,
            "psnr": psnr,
            "ssim": ssim,
        }
