"""The latents at which the teacher's roll-outs end, with the noise and the caption of each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from clockwork.data.prompts import Prompt
from clockwork.sampling.sampler import Sampler
from clockwork.training.source import ExampleSource, Work
from clockwork.training.store import Batch


@dataclass(frozen=True)
class RolloutEnds(Batch):
    """Where the teacher's roll-outs start and end.

    Attributes:
        noise: Standard normal noise in float32, `batch × channels × height × width`.
        latents: The teacher's final latents in float32, of the same shape.
        captions: The captions.
    """

    noise: Tensor
    latents: Tensor
    captions: tuple[str, ...]


class RolloutEndSource(ExampleSource):
    """Generates the teacher's final latents from captions, one example per caption.

    Args:
        sampler: The operating point.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def work(self, seed: int, batch_id: int) -> Work:
        """Returns one example, and the UNet calls of one caption."""
        sampler = self.sampler
        return Work(1, sampler.num_unet_calls * sampler.teacher.unet_calls_per_step(sampler.guidance))

    def example_bytes(self) -> int:
        """Returns the memory of noise and latents of one caption in bytes."""
        return 2 * 4 * prod(self.sampler.teacher.latent_shape)

    def parts(self, items: Sequence[Prompt], seed: int, batch_id: int) -> Iterator[RolloutEnds]:
        """Runs the teacher from noise to latent."""
        sampler, captions = self.sampler, [prompt.text for prompt in items]
        noise = sampler.teacher.noise([prompt.id for prompt in items], seed)
        latents = sampler.latents(captions, noise, sampler.full_denoiser)
        yield RolloutEnds(noise, latents, tuple(captions))
