"""Pictures on disk, one file a prompt: a killed run goes on with the first that is missing."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from clockwork.data.image_io import read_image, write_image
from clockwork.data.prompts import Prompt, chunks
from clockwork.io import distributed as processes
from clockwork.sampling.denoisers import Denoiser
from clockwork.sampling.sampler import Setup


def generate(
    setup: Setup,
    prompts: Sequence[Prompt],
    folder: Path,
    seed: int = 0,
    batch_size: int = 32,
    wrap: Callable[[Denoiser, list[int]], Denoiser] | None = None,
    label: str | None = None,
) -> None:
    """One PNG a prompt, named by its id; those already there are kept. Several processes take turns at the prompts.

    `wrap` puts another denoiser around the setup's, given the ids of a batch's prompts; `label` is the progress bar's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mine = prompts[processes.rank() :: processes.ranks()]
    missing = [p for p in mine if not _file(folder, p).is_file()]
    label, done = label or f"{setup.adaptor_name} {setup.schedule} {setup.steps} steps", len(mine) - len(missing)
    with tqdm(total=len(mine), initial=done, desc=label, unit="image", disable=processes.rank() > 0) as bar:
        for batch in chunks(missing, batch_size):
            ids = [p.id for p in batch]
            denoiser = setup.denoiser if wrap is None else wrap(setup.denoiser, ids)
            latents = setup.latents([p.text for p in batch], setup.teacher.noise(ids, seed), denoiser)
            for prompt, image in zip(batch, setup.teacher.decode(latents), strict=True):
                write_image(_file(folder, prompt), image)
            bar.update(len(batch))


def pictures(folder: Path, prompts: Sequence[Prompt], batch_size: int = 64) -> Iterator[Tensor]:
    """The pictures of the prompts, in their order: 8-bit batches `batch × 3 × height × width`."""
    for batch in chunks(prompts, batch_size):
        yield torch.stack([read_image(_file(folder, p)) for p in batch])


def _file(folder: Path, prompt: Prompt) -> Path:
    return folder / f"{prompt.id}.png"
