"""Examples made while training: fresh ones every epoch, from a random part of the prompts or images, seen several
times."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from tqdm import tqdm

from clockwork.data.prompts import chunks
from clockwork.errors import UserError
from clockwork.training.source import ExampleSource, Work
from clockwork.training.store import Batch, ExampleStore

GIB = 2**30


@dataclass(frozen=True)
class GenerationBatch:
    """What a process makes examples of at once."""

    items: Sequence[Any]
    id: int  # of the first item over all processes
    work: Work

    @property
    def examples(self) -> int:
        return len(self.items) * self.work.examples


class OnlineDataModule(LightningDataModule):
    """Fresh examples every epoch, made of a random part of the items and kept in bounded memory.

    Generation costs far more than a training step, so an epoch sees its examples `repeats_per_epoch` times. They depend
    on the seed and the epoch alone, so that a resumed run sees what an uninterrupted one would have. Where an epoch's
    examples are larger than `max_gb`, the epoch is several rounds of generation and training, equal but for one
    generation batch.

    With several processes each generates and trains on its share. All have equally many items: the first of an epoch
    are used twice where their number is not a multiple of the processes'.

    Args:
        source: Makes the examples.
        items: Prompts or captioned images.
        per_epoch: Items of one epoch, over all processes.
        repeats_per_epoch: How often an epoch sees its examples.
        batch_size: Examples of a training batch, per process.
        generation_batch_size: Items that the teacher works on at once, per process.
        seed: The run's.
        max_gb: GiB that examples may take at once, per process; at least one generation batch is kept.
        place: Where they are kept: `auto`, `device` or `cpu` (`ExampleStore`).
        grouped: Whether a batch holds whole groups (the two halves of guidance); else it holds independent examples.
        validation: Held-out items. Their examples are made once, kept on the host, and come in whole groups.
    """

    def __init__(
        self,
        source: ExampleSource,
        items: Sequence[Any],
        per_epoch: int = 256,
        repeats_per_epoch: int = 6,
        batch_size: int = 16,
        generation_batch_size: int = 64,
        seed: int = 0,
        max_gb: float = 6.5,
        place: str = "auto",
        grouped: bool = True,
        validation: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.source, self.items, self.seed, self.validation = source, items, seed, validation
        self.per_epoch, self.repeats_per_epoch = min(per_epoch, len(items)), repeats_per_epoch
        self.batch_size, self.generation_batch_size = batch_size, generation_batch_size
        self.max_gb, self.group_size = max_gb, source.group_size if grouped else 1
        self.store = ExampleStore(place, self.group_size)

    def train_dataloader(self) -> "Epoch":
        trainer = self.trainer
        return Epoch(self, trainer.current_epoch, trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> "ValidationBatches":
        return ValidationBatches(self._validation_examples, self.batch_size)

    @cached_property
    def _validation_examples(self) -> ExampleStore:
        """This process's share; the noise is that of no epoch."""
        seed = self.noise_seed(-1)
        share = self.validation[self.trainer.global_rank :: self.trainer.world_size]
        batches = [
            GenerationBatch(items, items[0].id, self.source.work(seed, items[0].id))
            for items in chunks(share, self.generation_batch_size)
        ]
        store = ExampleStore("cpu", self.source.group_size)
        store.clear(sum(batch.examples for batch in batches))
        generate(self.source, batches, seed, store)
        return store

    def rounds(self, epoch: int, rank: int = 0, ranks: int = 1) -> list[list[GenerationBatch]]:
        """What a process generates before each part of an epoch's training.

        Raises:
            UserError: There are fewer items than processes.
        """
        check_items(self.per_epoch, ranks)
        rng = random.Random(f"{self.seed}/{epoch}")
        chosen = rng.sample(list(self.items), self.per_epoch)
        chosen += chosen[: -len(chosen) % ranks]
        seed = self.noise_seed(epoch)
        batches = [
            GenerationBatch(batch[rank::ranks], batch[0].id, self.source.work(seed, batch[0].id))
            for batch in chunks(chosen, self.generation_batch_size * ranks)
        ]
        largest = max(batch.examples for batch in batches) * self.source.example_bytes()
        fitting = max(1, int(self.max_gb * GIB) // largest)
        number = -(-len(batches) // fitting)
        edges = [i * len(batches) // number for i in range(number + 1)]
        return [batches[start:end] for start, end in pairwise(edges)]

    def items_of_batch(self, epoch: int, number: int, rank: int = 0, ranks: int = 1) -> list[Any]:
        """The prompts or images of one of a process's training batches, worked out without generating anything."""
        order = torch.Generator().manual_seed(self.order_seed(epoch))
        for batches in self.rounds(epoch, rank, ranks):
            blocks = [batch.items for batch in batches for _ in range(batch.work.examples // self.group_size)]
            items = [item for block in blocks for item in block]
            places = list(
                shuffled(torch.arange(len(items))[None], self.repeats_per_epoch, self.groups_per_batch, order)
            )
            if number < len(places):
                return [items[place] for place in places[number].tolist()]
            number -= len(places)
        raise IndexError(f"epoch {epoch} has no such batch")

    def num_steps(self, batches: Sequence[GenerationBatch]) -> int:
        """Training batches of one round."""
        groups = sum(batch.examples for batch in batches) // self.group_size
        return self.repeats_per_epoch * -(-groups // self.groups_per_batch)

    @property
    def groups_per_batch(self) -> int:
        return max(1, self.batch_size // self.group_size)

    def order_seed(self, epoch: int) -> int:
        return self.seed * 100_003 + epoch

    def noise_seed(self, epoch: int) -> int:
        """No evaluation uses this noise."""
        return (self.seed + 1) * 1_000_000 + epoch


class Epoch:
    """One process's training batches of one epoch; iterating over them generates the examples, round by round."""

    def __init__(self, data: OnlineDataModule, epoch: int, rank: int = 0, ranks: int = 1) -> None:
        self.data, self.epoch, self.rank = data, epoch, rank
        self.rounds = data.rounds(epoch, rank, ranks)

    def __len__(self) -> int:
        return sum(map(self.data.num_steps, self.rounds))

    def __iter__(self) -> Iterator[Batch]:
        data, order = self.data, torch.Generator().manual_seed(self.data.order_seed(self.epoch))
        largest = max(sum(batch.examples for batch in part) for part in self.rounds)
        for batches in self.rounds:
            data.store.clear(largest)
            bar = tqdm(batches, f"epoch {self.epoch}: the teacher's examples", leave=False, disable=self.rank > 0)
            generate(data.source, bar, data.noise_seed(self.epoch), data.store)
            groups = shuffled(data.store.groups, data.repeats_per_epoch, data.groups_per_batch, order)
            yield from data.store.batches(list(groups))


class ValidationBatches:
    """The held-out examples in whole groups, in the same order every time."""

    def __init__(self, store: ExampleStore, batch_size: int) -> None:
        self.store, self.groups_per_batch = store, max(1, batch_size // store.group_size)

    def __len__(self) -> int:
        return -(-self.store.size // self.store.group_size // self.groups_per_batch)

    def __iter__(self) -> Iterator[Batch]:
        if self.store.size:
            groups = self.store.groups.split(self.groups_per_batch, dim=1)
            yield from self.store.batches([places.flatten() for places in groups])


def generate(source: ExampleSource, batches: Iterable[GenerationBatch], seed: int, store: ExampleStore) -> None:
    """Appends the examples of some generation batches to a store."""
    for batch in batches:
        for part in source.parts(batch.items, seed, batch.id):
            store.append(part)


def shuffled(groups: Tensor, repeats_per_epoch: int, groups_per_batch: int, order: torch.Generator) -> Iterator[Tensor]:
    """Batches of examples' places: all groups in a new order, several times.

    Args:
        groups: Places of examples that belong together, `group size × groups`.
        repeats_per_epoch: How often every group comes.
        groups_per_batch: Groups of a batch; the last batch of a repeat may have fewer.
        order: Draws the orders.
    """
    for _ in range(repeats_per_epoch):
        for chosen in torch.randperm(groups.shape[1], generator=order).split(groups_per_batch):
            yield groups[:, chosen].flatten()


def check_items(count: int, ranks: int) -> None:
    """Raises a UserError where processes would be without a prompt or image."""
    if count < ranks:
        raise UserError(
            f"an epoch has {count} prompts or images for {ranks} processes, and each needs one: raise "
            "prompts_per_epoch, pass more prompts, or start fewer processes"
        )
