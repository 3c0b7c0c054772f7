"""DDIM inversion: from an image's latent to noise from which DDIM reconstructs it. All latents on the way are kept."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from diffusers import SchedulerMixin
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clockwork.io.atomic import atomic_write
from clockwork.io.progress import progress_bar
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition

Latents = Mapping[int, Tensor]  # 1 × channels × height × width, by timestep


def invert(sampler: Sampler, latent: Tensor, prompt: str, keep: Collection[int] | None = None) -> dict[int, Tensor]:
    """Inverts the latent of one image, without guidance (paper, equation 4).

    As is usual, the UNet receives each latent with the timestep of the next, noisier one.

    Args:
        sampler: Teacher, adaptor, schedule and steps, with an inverse solver (`ddim_inverse`) and guidance 1.
        latent: Latent of the image, `1 × channels × height × width`.
        prompt: Description of the image.
        keep: Timesteps whose latents are returned; None for all.

    Returns:
        The latents by timestep, in the order of increasing noise, `1 × channels × height × width` each.
    """
    steps = rollout(sampler.denoiser, inverse_solver(sampler), sampler.steps, latent, condition(sampler, prompt))
    records = progress_bar(steps, "inversion", sampler.num_unet_calls, leave=False, unit="step")
    return {int(r.timestep): r.latents for r in records if keep is None or int(r.timestep) in keep}


def inverse_solver(sampler: Sampler) -> SchedulerMixin:
    """Creates the solver of an inversion.

    With as many steps as the noise schedule has timesteps, an offset of the timesteps would exceed the last one, so it
    is set to 0.

    Args:
        sampler: The sampler of the inversion.

    Returns:
        A diffusers scheduler.
    """
    solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
    uses_all_timesteps = sampler.steps == solver.config.num_train_timesteps
    return type(solver).from_config(solver.config, steps_offset=0) if uses_all_timesteps else solver


def timesteps(solver: SchedulerMixin, steps: int) -> list[int]:
    """Lists the timesteps that a roll-out visits.

    Args:
        solver: A diffusers scheduler; it is not modified.
        steps: Number of steps.

    Returns:
        The timesteps in order.
    """
    copy = type(solver).from_config(solver.config)
    copy.set_timesteps(steps)
    return [int(t) for t in copy.timesteps]


def condition(sampler: Sampler, prompt: str) -> Condition:
    """Encodes a prompt for the UNet and the adaptor of a sampler.

    Args:
        sampler: The sampler.
        prompt: The prompt.

    Returns:
        The condition of one prompt.
    """
    reads_text = sampler.adaptor is not None and "text_emb" in sampler.adaptor.inputs
    return sampler.teacher.conditions([prompt], sampler.guidance, reads_text)[0]


def save_latents(file: Path, latents: Latents) -> None:
    """Writes latents to a safetensors file, atomically.

    Args:
        file: The file to write.
        latents: Latents by timestep.
    """
    with atomic_write(file) as partial:
        save_file({str(t): x.contiguous() for t, x in latents.items()}, partial)


class LatentsOnDisk(Mapping[int, Tensor]):
    """Latents by timestep in a file of `save_latents`. Each is read on access, so that only one is in memory at a time.

    Args:
        file: The safetensors file.
    """

    def __init__(self, file: Path) -> None:
        with safe_open(file, "pt") as tensors:
            self._file, self._timesteps = file, sorted(int(t) for t in tensors.keys())  # noqa: SIM118

    def __getitem__(self, t: int) -> Tensor:
        with safe_open(self._file, "pt") as tensors:
            return tensors.get_tensor(str(t))

    def __iter__(self) -> Iterator[int]:
        return iter(self._timesteps)

    def __len__(self) -> int:
        return len(self._timesteps)


def read_latents(file: Path) -> LatentsOnDisk | None:
    """Opens a file of `save_latents`.

    Args:
        file: The file.

    Returns:
        The latents; None if there is no such file, or it is damaged.
    """
    try:
        return LatentsOnDisk(file) if file.is_file() else None
    except (SafetensorError, ValueError, OSError) as error:
        print(f"{file} is damaged ({type(error).__name__}): the image is inverted again")
        return None
