"""The sets of metrics a config can name."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from clockwork.data.image_io import image_files, read_image, squared
from clockwork.data.prompts import chunks
from clockwork.evaluation.scores import Metrics
from clockwork.io import distributed
from clockwork.io.fingerprint import digest
from clockwork.io.threads import map_in_threads
from clockwork.metrics.fid import FID
from clockwork.metrics.inception import WIDTH, Inception, resized
from clockwork.teachers.text_embedder import OpenCLIP


def none(latency: bool = True) -> Metrics:
    """Pictures, PSNR, SSIM, FLOPs, and latency if wished."""
    return Metrics(latency=latency)


def real(
    reference: str,
    inception: str,
    sha256: str,
    clip: str = "ViT-g-14",
    clip_tag: str = "laion2b_s34b_b88k",
    size: int | None = None,
    latency: bool = True,
    cache: str = "outputs/cache",
    device: str = "auto",
) -> Metrics:
    """FID through clean-fid's Inception to a folder of real pictures, and CLIP score through an open_clip model.

    With `size`, pictures and reference are first brought to that many pixels a side (Table 2: 256). The reference's
    sums are kept under `cache` by what made them: the files' hash, the network's, the resizing, the count.
    """
    files = image_files(Path(reference))
    network = Inception(inception, sha256, device)
    scorer = OpenCLIP(clip, clip_tag, network.device)
    at = f" at {size}" if size else ""
    label = f"{network.label}{at}, {len(files)} pictures {_hash(files)}"

    def read(batch: Sequence[Path]) -> torch.Tensor:
        images = [read_image(file) for file in batch]
        return torch.cat([resized((squared(image, size) if size else image)[None]) for image in images])

    def read_share() -> Iterator[torch.Tensor]:
        batches = list(chunks(distributed.share(files), 32))
        silent = distributed.rank() > 0
        yield from tqdm(map_in_threads(read, batches), "reference", len(batches), unit="batch", disable=silent)

    kept = Path(cache) / f"fid-{digest(label)}.npz"
    return Metrics(FID(network, WIDTH, label, read_share, kept), scorer, latency, size=size)


def _hash(files: list[Path]) -> str:
    """Twelve hexadecimal digits of the files' names and contents."""
    sha = hashlib.sha256()
    contents = map_in_threads(lambda file: hashlib.sha256(file.read_bytes()).digest(), files)
    for file, content in zip(files, contents, strict=True):
        sha.update(file.name.encode() + content)
    return sha.hexdigest()[:12]
