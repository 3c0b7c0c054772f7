"""DDIM inversion: from a picture's latent to the noise that leads back to it, every latent on the way kept."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from diffusers import SchedulerMixin
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from clockwork.io.atomic import atomic_write
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Setup
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition

Latents = Mapping[int, Tensor]  # 1 × channels × height × width, by timestep


def invert(setup: Setup, latent: Tensor, prompt: str, keep: Collection[int] | None = None) -> dict[int, Tensor]:
    """The latents at every timestep of the inversion, or at those in `keep`; each noisier than the one before.

    One picture's `latent`, `1 × channels × height × width`; `prompt` says what it shows. Guidance is off and the batch
    single, as equation 4 counts. The UNet sees a latent with the timestep that it is brought to, as is usual.
    """
    steps = rollout(setup.denoiser, inverse_solver(setup), setup.steps, latent, condition(setup, prompt))
    seen = tqdm(steps, "inversion", setup.calls, leave=False, unit="step")
    return {int(r.timestep): r.latents for r in seen if keep is None or int(r.timestep) in keep}


def inverse_solver(setup: Setup) -> SchedulerMixin:
    """The setup's; with as many steps as the noise schedule has, an offset would lead past its last timestep."""
    solver = make_solver(setup.solver, setup.teacher.noise_schedule)
    past = setup.steps == solver.config.num_train_timesteps
    return type(solver).from_config(solver.config, steps_offset=0) if past else solver


def timesteps(solver: SchedulerMixin, steps: int) -> list[int]:
    """Those that a roll-out with this solver visits, in its order."""
    own = type(solver).from_config(solver.config)
    own.set_timesteps(steps)
    return [int(t) for t in own.timesteps]


def condition(setup: Setup, prompt: str) -> Condition:
    """The prompt's, with what the setup's UNet and adaptor want besides."""
    reads_text = setup.adaptor is not None and "text_emb" in setup.adaptor.inputs
    return setup.teacher.conditions([prompt], setup.guidance, reads_text)[0]


def save_latents(file: Path, latents: Latents) -> None:
    """Safetensors, a tensor a timestep; whole or not at all."""
    with atomic_write(file) as partial:
        save_file({str(t): x.contiguous() for t, x in latents.items()}, partial)


class LatentsOnDisk(Mapping[int, Tensor]):
    """What `save_latents` wrote; each is read when asked for, so that an edit holds one at a time."""

    def __init__(self, file: Path) -> None:
        with safe_open(file, "pt") as kept:
            self._file, self._timesteps = file, sorted(int(t) for t in kept.keys())  # noqa: SIM118

    def __getitem__(self, t: int) -> Tensor:
        with safe_open(self._file, "pt") as kept:
            return kept.get_tensor(str(t))

    def __iter__(self) -> Iterator[int]:
        return iter(self._timesteps)

    def __len__(self) -> int:
        return len(self._timesteps)
