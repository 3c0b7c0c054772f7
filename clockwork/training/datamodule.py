"""Data module that generates new training examples every epoch, from a random part of the prompts or images."""

import random
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from pytorch_lightning import LightningDataModule

from clockwork.data.prompts import chunks
from clockwork.errors import UserError
from clockwork.io.progress import progress_bar
from clockwork.training.batches import GenerationBatch, ValidationBatches, generate, shuffled
from clockwork.training.source import ExampleSource
from clockwork.training.store import Batch, ExampleStore

GIB = 2**30


class OnlineDataModule(LightningDataModule):
    """Generates new examples every epoch, from a random part of the items and in bounded memory.

    Generation costs far more than a training step, so an epoch uses its examples `repeats_per_epoch` times. They depend
    on the seed and the epoch alone, so that a resumed run uses the same examples as an uninterrupted one. If the
    examples of an epoch are larger than `max_gb`, the epoch consists of several rounds of generation and training,
    whose sizes differ by at most one generation batch.

    With several processes, each generates and uses its share. All have the same number of items: if the number of items
    is not a multiple of the number of processes, the first items of an epoch are used twice.

    Args:
        source: Generates the examples.
        items: Prompts or captioned images.
        per_epoch: Number of items of an epoch, over all processes.
        repeats_per_epoch: Number of times that an epoch uses each of its examples.
        batch_size: Number of examples of a training batch, per process.
        generation_batch_size: Number of items of a batch of the teacher, per process.
        seed: Seed of the run.
        max_gb: Largest memory of the examples in GiB, per process; at least one generation batch is kept.
        examples_device: Memory of the examples: `auto`, `device` or `cpu` (`ExampleStore`).
        grouped: Whether a batch consists of complete groups, such as the two halves of guidance, instead of independent
            examples.
        validation: Held-out items. Their examples are generated once, kept on the host, and used in complete groups.
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
        examples_device: str = "auto",
        grouped: bool = True,
        validation: Sequence[Any] = (),
    ) -> None:
        super().__init__()
        self.source, self.items, self.seed, self.validation = source, items, seed, validation
        self.per_epoch, self.repeats_per_epoch = min(per_epoch, len(items)), repeats_per_epoch
        self.batch_size, self.generation_batch_size = batch_size, generation_batch_size
        self.max_gb, self.group_size = max_gb, source.group_size if grouped else 1
        self.store = ExampleStore(examples_device, self.group_size)

    def train_dataloader(self) -> "Epoch":
        """Returns this process's training batches of the current epoch."""
        trainer = self.trainer
        return Epoch(self, trainer.current_epoch, trainer.global_rank, trainer.world_size)

    def val_dataloader(self) -> "ValidationBatches":
        """Returns this process's validation batches, the same in every epoch."""
        return ValidationBatches(self._validation_examples, self.batch_size)

    @cached_property
    def _validation_examples(self) -> ExampleStore:
        """This process's validation examples, with noise that no epoch uses."""
        seed, source = self.noise_seed(-1), self.source.for_validation()
        share = self.validation[self.trainer.global_rank :: self.trainer.world_size]
        batches = [
            GenerationBatch(items, items[0].id, source.work(seed, items[0].id))
            for items in chunks(share, self.generation_batch_size)
        ]
        store = ExampleStore("cpu", source.group_size)
        store.clear(sum(batch.examples for batch in batches))
        generate(source, batches, seed, store)
        return store

    def rounds(self, epoch: int, rank: int = 0, world_size: int = 1) -> list[list[GenerationBatch]]:
        """Plans an epoch of a process, without generating anything.

        Args:
            epoch: Number of the epoch, from 0.
            rank: Rank of the process.
            world_size: Number of processes.

        Returns:
            The generation batches of each round of generation and training.

        Raises:
            UserError: There are fewer items than processes.
        """
        check_items(self.per_epoch, world_size)
        rng = random.Random(f"{self.seed}/{epoch}")
        chosen = rng.sample(list(self.items), self.per_epoch)
        chosen += chosen[: -len(chosen) % world_size]
        seed = self.noise_seed(epoch)
        batches = [
            GenerationBatch(batch[rank::world_size], batch[0].id, self.source.work(seed, batch[0].id))
            for batch in chunks(chosen, self.generation_batch_size * world_size)
        ]
        largest = max(batch.examples for batch in batches) * self.source.example_bytes()
        batches_per_round = max(1, int(self.max_gb * GIB) // largest)
        num_rounds = -(-len(batches) // batches_per_round)
        edges = [i * len(batches) // num_rounds for i in range(num_rounds + 1)]
        return [batches[start:end] for start, end in pairwise(edges)]

    def items_of_batch(self, epoch: int, number: int, rank: int = 0, world_size: int = 1) -> list[Any]:
        """Finds the prompts or images of a training batch, without generating anything.

        Args:
            epoch: Number of the epoch, from 0.
            number: Number of the process's batch in the epoch, from 0.
            rank: Rank of the process.
            world_size: Number of processes.

        Returns:
            One prompt or image per group of examples in the batch.

        Raises:
            IndexError: The epoch has no such batch.
        """
        order = torch.Generator().manual_seed(self.order_seed(epoch))
        for batches in self.rounds(epoch, rank, world_size):
            blocks = [batch.items for batch in batches for _ in range(batch.work.examples // self.group_size)]
            items = [item for block in blocks for item in block]
            groups = torch.arange(len(items))[None]
            indices = list(shuffled(groups, self.repeats_per_epoch, self.groups_per_batch, order))
            if number < len(indices):
                return [items[index] for index in indices[number].tolist()]
            number -= len(indices)
        raise IndexError(f"epoch {epoch} has fewer batches than that")

    def num_steps(self, batches: Sequence[GenerationBatch]) -> int:
        """Computes the number of training batches of one round.

        Args:
            batches: Generation batches of the round.

        Returns:
            The number of training batches, over all repeats.
        """
        groups = sum(batch.examples for batch in batches) // self.group_size
        return self.repeats_per_epoch * -(-groups // self.groups_per_batch)

    @property
    def groups_per_batch(self) -> int:
        """Number of groups of a training batch."""
        return max(1, self.batch_size // self.group_size)

    def order_seed(self, epoch: int) -> int:
        """Returns the seed of the order of an epoch's batches.

        Args:
            epoch: Number of the epoch, from 0.
        """
        return self.seed * 100_003 + epoch

    def noise_seed(self, epoch: int) -> int:
        """Returns the seed of an epoch's noise, which no evaluation uses.

        Args:
            epoch: Number of the epoch, from 0.
        """
        return (self.seed + 1) * 1_000_000 + epoch


class Epoch:
    """One process's training batches of one epoch. Iterating over them generates the examples, round by round.

    Args:
        data: The data module.
        epoch: Number of the epoch, from 0.
        rank: Rank of the process.
        world_size: Number of processes.
    """

    def __init__(self, data: OnlineDataModule, epoch: int, rank: int = 0, world_size: int = 1) -> None:
        self.data, self.epoch, self.rank = data, epoch, rank
        self.rounds = data.rounds(epoch, rank, world_size)

    def __len__(self) -> int:
        return sum(map(self.data.num_steps, self.rounds))

    def __iter__(self) -> Iterator[Batch]:
        data, order = self.data, torch.Generator().manual_seed(self.data.order_seed(self.epoch))
        largest = max(sum(batch.examples for batch in batches) for batches in self.rounds)
        for batches in self.rounds:
            data.store.clear(largest)
            bar = progress_bar(batches, f"epoch {self.epoch}: generating examples", leave=False)
            generate(data.source, bar, data.noise_seed(self.epoch), data.store)
            groups = shuffled(data.store.groups, data.repeats_per_epoch, data.groups_per_batch, order)
            yield from data.store.batches(list(groups))


def check_items(count: int, world_size: int) -> None:
    """Checks that every process has a prompt or image.

    Args:
        count: Number of prompts or images of an epoch.
        world_size: Number of processes.

    Raises:
        UserError: There are fewer prompts or images than processes.
    """
    if count < world_size:
        raise UserError(
            f"an epoch has {count} prompts or images for {world_size} processes, and each needs one: raise "
            "prompts_per_epoch, pass more prompts, or start fewer processes"
        )
