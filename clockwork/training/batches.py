"""Generation batches, and the order in which training and validation use the generated examples."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clockwork.training.source import ExampleSource, Work
from clockwork.training.store import Batch, ExampleStore


@dataclass(frozen=True)
class GenerationBatch:
    """Prompts or images from which a process generates examples at once.

    Attributes:
        items: The prompts or images.
        id: Id of the first item over all processes.
        work: What each item yields and costs.
    """

    items: Sequence[Any]
    id: int
    work: Work

    @property
    def examples(self) -> int:
        """Number of examples of all items."""
        return len(self.items) * self.work.examples


class ValidationBatches:
    """Batches of the held-out examples, in complete groups and always in the same order.

    Args:
        store: The examples.
        batch_size: Number of examples of a batch.
    """

    def __init__(self, store: ExampleStore, batch_size: int) -> None:
        self.store, self.groups_per_batch = store, max(1, batch_size // store.group_size)

    def __len__(self) -> int:
        return -(-self.store.size // self.store.group_size // self.groups_per_batch)

    def __iter__(self) -> Iterator[Batch]:
        if self.store.size:
            groups = self.store.groups.split(self.groups_per_batch, dim=1)
            yield from self.store.batches([indices.flatten() for indices in groups])


def generate(source: ExampleSource, batches: Iterable[GenerationBatch], seed: int, store: ExampleStore) -> None:
    """Generates examples and appends them to a store.

    Args:
        source: Generates the examples.
        batches: Generation batches.
        seed: Seed of the noise.
        store: Store with capacity for the examples.
    """
    for batch in batches:
        for part in source.parts(batch.items, seed, batch.id):
            store.append(part)


def shuffled(groups: Tensor, repeats_per_epoch: int, groups_per_batch: int, order: torch.Generator) -> Iterator[Tensor]:
    """Shuffles groups of examples several times.

    Args:
        groups: Indices of examples that belong together, `group size × groups`.
        repeats_per_epoch: Number of times that every group is used, each time in a new order.
        groups_per_batch: Number of groups of a batch; the last batch of a repeat may have fewer.
        order: Random generator of the orders.

    Yields:
        Indices of the examples of each batch.
    """
    for _ in range(repeats_per_epoch):
        for chosen in torch.randperm(groups.shape[1], generator=order).split(groups_per_batch):
            yield groups[:, chosen].flatten()
