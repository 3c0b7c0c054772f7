"""Where training examples come from: the teacher's work, by prompt or captioned image."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clockwork.training.store import Batch


@dataclass(frozen=True)
class Work:
    """What one prompt or image gives and costs."""

    examples: int
    unet_calls: int  # each of guidance's two is one


class ExampleSource(ABC):
    """The teacher's work: makes training examples of prompts or captioned images."""

    group_size: int = 1  # see `ExampleStore`

    @abstractmethod
    def parts(self, items: Sequence[Any], seed: int, batch_id: int) -> Iterator[Batch]:
        """The examples of some prompts or images, in parts of `group_size` equal blocks.

        Args:
            items: Prompts or captioned images: one process's share of a generation batch.
            seed: The noise's.
            batch_id: The number of the generation batch's first item over all processes. What is drawn per batch
                depends on it, so that every process draws the same.
        """

    @abstractmethod
    def work(self, seed: int, batch_id: int) -> Work:
        """What each item of that generation batch gives and costs, known without generating anything."""

    @abstractmethod
    def example_bytes(self) -> int:
        """Memory of one example, likewise."""

    def __call__(self, items: Sequence[Any], seed: int) -> Any:
        """The examples of one generation batch, joined."""
        parts = list(self.parts(items, seed, items[0].id))
        return type(parts[0]).join(parts)
