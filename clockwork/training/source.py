"""Base class of what generates training examples with the teacher, from prompts or captioned images."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clockwork.training.store import Batch


@dataclass(frozen=True)
class Work:
    """What one prompt or image yields and costs.

    Attributes:
        examples: Number of training examples.
        unet_calls: Number of the teacher's UNet calls at batch 1; guidance counts as two.
    """

    examples: int
    unet_calls: int


class ExampleSource(ABC):
    """Generates training examples with the teacher, from prompts or captioned images.

    Attributes:
        group_size: Number of examples that belong together, such as the two halves of guidance (`ExampleStore`).
    """

    group_size: int = 1

    @abstractmethod
    def parts(self, items: Sequence[Any], seed: int, batch_id: int) -> Iterator[Batch]:
        """Generates the examples of some prompts or images.

        Args:
            items: Prompts or captioned images: this process's share of a generation batch.
            seed: Seed of the noise.
            batch_id: Id of the generation batch's first item over all processes. It seeds what is drawn once per batch,
                so that every process draws the same.

        Yields:
            Examples in parts of `group_size` blocks of equal length.
        """

    @abstractmethod
    def work(self, seed: int, batch_id: int) -> Work:
        """Returns what each item of a generation batch yields and costs, without generating anything.

        Args:
            seed: Seed of the noise.
            batch_id: Id of the generation batch's first item over all processes.
        """

    @abstractmethod
    def example_bytes(self) -> int:
        """Returns the memory of one example in bytes, without generating anything."""

    def for_validation(self) -> "ExampleSource":
        """Returns the source of validation examples, which are generated once: by default this one."""
        return self

    def __call__(self, items: Sequence[Any], seed: int) -> Any:
        """Generates the examples of one generation batch.

        Args:
            items: Prompts or captioned images.
            seed: Seed of the noise.

        Returns:
            All examples as one batch.
        """
        parts = list(self.parts(items, seed, items[0].id))
        return type(parts[0]).join(parts)
