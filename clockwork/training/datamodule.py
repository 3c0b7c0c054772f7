"""Examples by epoch: a fresh set from a random part of the captions or pictures, seen several times."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from clockwork.data.prompts import chunks


@dataclass(frozen=True)
class Batch:
    """Tensors, and tuples of text, that begin with the same batch."""

    def __len__(self) -> int:
        return len(getattr(self, fields(self)[0].name))

    def __getitem__(self, index: Tensor) -> Self:
        def chosen(values: Any) -> Any:
            return values[index] if isinstance(values, Tensor) else tuple(values[i] for i in index.tolist())

        return type(self)(*(chosen(getattr(self, f.name)) for f in fields(self)))

    def together(self) -> Tensor:
        """Which examples belong in one batch, as indices `examples of a group × groups`: each alone, unless said."""
        return torch.arange(len(self))[None]

    @classmethod
    def join(cls, batches: Sequence[Self]) -> Self:
        def joined(parts: list[Any]) -> Any:
            return torch.cat(parts) if isinstance(parts[0], Tensor) else tuple(x for part in parts for x in part)

        return cls(*(joined([getattr(batch, f.name) for batch in batches]) for f in fields(cls)))

    def to(self, device: torch.device, dtype: torch.dtype | None = None, non_blocking: bool = False) -> Self:
        """As `Tensor.to`; whole numbers keep their type."""

        def moved(values: Any) -> Any:
            if not isinstance(values, Tensor):
                return values
            kind = dtype if values.is_floating_point() else None
            return values.to(device, kind, non_blocking=non_blocking)

        return type(self)(*(moved(getattr(self, f.name)) for f in fields(self)))


class Sets(LightningDataModule):
    """A fresh set every epoch, made of a random part of the items and kept on the teacher's device.

    `make(items, seed)` gives the examples of some items: the teacher's work, which costs far more than a training
    step, so an epoch sees its set `passes` times. Sets depend on the seed and the epoch alone, so that a resumed run
    sees what an uninterrupted one would have.
    """

    def __init__(
        self,
        make: Callable[[Sequence[Any], int], Batch],
        items: Sequence[Any],
        per_epoch: int = 256,
        passes: int = 6,
        batch_size: int = 16,
        generation_batch_size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.make, self.items, self.seed = make, items, seed
        self.per_epoch, self.passes = min(per_epoch, len(items)), passes
        self.batch_size, self.generation_batch_size = batch_size, generation_batch_size

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer, epoch = self.trainer, self.trainer.current_epoch
        examples = self.examples(epoch, trainer.global_rank, trainer.world_size)
        order = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        return DataLoader(
            examples,  # type: ignore[arg-type]
            sampler=_Passes(examples.together(), self.passes, self.batch_size, order),
            batch_size=None,
        )

    def examples(self, epoch: int, rank: int = 0, ranks: int = 1) -> Batch:
        rng = random.Random(f"{self.seed}/{epoch}")
        chosen = rng.sample(list(self.items), self.per_epoch)[rank::ranks]
        batches = list(chunks(chosen, self.generation_batch_size))
        seed = (self.seed + 1) * 1_000_000 + epoch  # noise that no evaluation uses
        bar = tqdm(batches, f"epoch {epoch}: the teacher's examples", leave=False, disable=rank > 0)
        made = [self.make(batch, seed) for batch in bar]
        return type(made[0]).join(made)


class _Passes:
    """Index batches: the whole set in a new order, several times; groups (guidance's two halves) stay together."""

    def __init__(self, groups: Tensor, passes: int, batch_size: int, order: torch.Generator) -> None:
        self.groups, self.passes, self.order = groups, passes, order
        self.batch_size = max(1, batch_size // len(groups))

    def __len__(self) -> int:
        return self.passes * -(-self.groups.shape[1] // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.passes):
            for chosen in torch.randperm(self.groups.shape[1], generator=self.order).split(self.batch_size):
                yield self.groups[:, chosen].flatten()
