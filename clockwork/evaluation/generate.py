"""Images on disk, one file per prompt: a run that was stopped goes on with the first that is missing."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from clockwork.data.image_io import images_at_once, read_images, write_image
from clockwork.data.prompts import Prompt, chunks
from clockwork.io import distributed
from clockwork.io.progress import progress_bar
from clockwork.io.threads import THREADS, map_in_threads
from clockwork.sampling.denoisers import Denoiser
from clockwork.sampling.sampler import Sampler

Wrapper = Callable[[Denoiser, list[int]], Denoiser]


def generate(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    folder: Path,
    seed: int = 0,
    batch_size: int = 50,
    wrap: Wrapper | None = None,
    label: str | None = None,
) -> None:
    """Writes one PNG per prompt, named by its id, and keeps those that are there. Several processes share the work.

    Args:
        sampler: What generates.
        prompts: An image each.
        folder: Where the images are.
        seed: Of the noise, with the prompt's id.
        batch_size: At most; fewer images at once where they are large (`images_at_once`).
        wrap: Puts another denoiser around the sampler's, given the ids of a batch's prompts.
        label: The progress bar's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = _missing(prompts, folder)
    label = label or f"{sampler.adaptor_name} {sampler.schedule} {sampler.steps} steps"
    total, done = len(prompts), len(prompts) - len(missing)
    with progress_bar(total=total, initial=done, desc=label, unit="image") as bar:
        for _ in map_in_threads(_write, _images(sampler, missing, folder, seed, batch_size, wrap)):
            bar.update(min(distributed.world_size(), total - bar.n))
    distributed.barrier()


def generate_batch(sampler: Sampler, prompts: Sequence[Prompt], seed: int, wrap: Wrapper | None = None) -> Tensor:
    """Generates images without writing them.

    Args:
        sampler: What generates.
        prompts: An image each.
        seed: Of the noise, with the prompt's id.
        wrap: As in `generate`.

    Returns:
        8-bit images on the CPU, `batch × 3 × height × width`.
    """
    ids = [prompt.id for prompt in prompts]
    denoiser = sampler.denoiser if wrap is None else wrap(sampler.denoiser, ids)
    latents = sampler.latents([prompt.text for prompt in prompts], sampler.teacher.noise(ids, seed), denoiser)
    return sampler.teacher.decode(latents)


def read_or_generate(sampler: Sampler, prompts: Sequence[Prompt], folder: Path, seed: int) -> Tensor:
    """Reads the images of prompts if all have been written, else generates them. Writes nothing.

    Args:
        sampler: What generates.
        prompts: An image each.
        folder: Where images of earlier evaluations are, if there are any.
        seed: Of the noise, with the prompt's id.

    Returns:
        8-bit images on the CPU, `batch × 3 × height × width`.
    """
    written = all(image_file(folder, prompt).is_file() for prompt in prompts)
    return read_batch(folder, prompts) if written else generate_batch(sampler, prompts, seed)


def rounds(prompts: Sequence[Prompt], at_once: int) -> Iterator[Sequence[Prompt]]:
    """This process's prompts, batch by batch. Processes wait for each other after every batch: none waits long for a
    slow one. All processes must take all batches.

    Args:
        prompts: The prompts of all processes.
        at_once: Size of a batch.

    Yields:
        The batches; a process may have one less than others.
    """
    for round_of_prompts in chunks(prompts, at_once * distributed.world_size()):
        if batch := distributed.share(round_of_prompts):
            yield batch
        distributed.barrier()


def read_batches(folder: Path, prompts: Sequence[Prompt], batch_size: int = 64) -> Iterator[Tensor]:
    """The images of the prompts, in their order: 8-bit batches `batch × 3 × height × width`, read in threads."""
    return map_in_threads(partial(read_batch, folder), chunks(prompts, batch_size), ahead=THREADS)


def read_batch(folder: Path, prompts: Sequence[Prompt]) -> Tensor:
    """The images of the prompts, in their order: 8-bit, `batch × 3 × height × width`."""
    return read_images([image_file(folder, prompt) for prompt in prompts])


def image_file(folder: Path, prompt: Prompt) -> Path:
    """Where a prompt's image is."""
    return folder / f"{prompt.id}.png"


def _missing(prompts: Sequence[Prompt], folder: Path) -> list[Prompt]:
    """As the main process finds them, so that all share the same ones."""
    existing = {file.name for file in folder.iterdir()}
    missing = distributed.from_main_process([image_file(folder, prompt).name not in existing for prompt in prompts])
    return [prompt for prompt, lacks in zip(prompts, missing, strict=True) if lacks]


def _images(
    sampler: Sampler, prompts: Sequence[Prompt], folder: Path, seed: int, batch_size: int, wrap: Wrapper | None
) -> Iterator[tuple[Path, Tensor]]:
    """This process's images, each with its file."""
    for batch in rounds(prompts, images_at_once(sampler.teacher.resolution, batch_size)):
        yield from zip((image_file(folder, p) for p in batch), generate_batch(sampler, batch, seed, wrap), strict=True)


def _write(image: tuple[Path, Tensor]) -> None:
    write_image(*image)
