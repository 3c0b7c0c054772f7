"""Unrolled trajectories: the teacher's own roll-outs from captions, as an adaptor's examples (Algorithm 1)."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from clockwork.adaptors import Adaptor
from clockwork.denoise import Full
from clockwork.prompts import Prompt, chunks
from clockwork.rollout import rollout
from clockwork.setup import Setup
from clockwork.solvers import make_solver


@dataclass(frozen=True)
class AdaptorExample:
    """A batch of what the adaptor sees and should answer."""

    r_in: Tensor  # batch × channels × height × width
    r_out_prev: Tensor  # likewise: of the step before, the teacher's or the adaptor's own
    t_emb: Tensor  # batch × time width
    text_emb: Tensor  # batch × text width; width 0 without pooled text
    r_out: Tensor  # likewise, the teacher's: the answer
    step: Tensor  # batch: which step of the roll-out
    half: Tensor  # batch: 0 guidance's negative half, 1 the prompt's

    def __len__(self) -> int:
        return len(self.step)

    def __getitem__(self, index: Tensor) -> "AdaptorExample":
        return AdaptorExample(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def join(examples: Sequence["AdaptorExample"]) -> "AdaptorExample":
        names = [f.name for f in fields(AdaptorExample)]
        return AdaptorExample(*(torch.cat([getattr(e, name) for e in examples]) for name in names))

    def to(
        self, device: torch.device, dtype: torch.dtype | None = None, non_blocking: bool = False
    ) -> "AdaptorExample":
        """As `Tensor.to`; steps keep their type."""
        features = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("step", "half")}
        return replace(self, **{name: x.to(device, dtype, non_blocking=non_blocking) for name, x in features.items()})


def unroll(setup: Setup, prompts: Sequence[Prompt], seed: int, own: Adaptor | None = None) -> AdaptorExample:
    """Every adaptor step of the full teacher's roll-outs for a batch of prompts, both halves of guidance.

    With `own`, features after an adaptor step are that adaptor's estimate, as they will be at inference, instead
    of the teacher's (matters for consecutive adaptor steps only: clock 4, not clock 2).
    """
    condition = setup.teacher.encode([p.text for p in prompts])
    negative = setup.teacher.encode([""]) if setup.guidance != 1 else None
    noise = setup.teacher.noise([p.id for p in prompts], seed)
    solver = make_solver(setup.solver, setup.teacher.noise_schedule)
    batch = len(prompts) * (1 if negative is None else 2)
    half = (torch.arange(batch) >= batch - len(prompts)).long()
    text = torch.zeros(batch, 0, device=noise.device)
    if condition.pooled is not None:
        text = condition.pooled
        if negative is not None and negative.pooled is not None:
            text = torch.cat([negative.pooled.expand(len(prompts), -1), text])
    examples, previous = [], None
    for record in rollout(Full(setup.split), solver, setup.steps, noise, condition, negative, setup.guidance):
        seen, estimate = record.denoised, None
        if not setup.schedule.is_full(record.step):
            prev = torch.zeros_like(seen.r_out) if previous is None else previous
            t_emb, step = seen.t_emb.expand(batch, -1), torch.full((batch,), record.step)
            examples.append(AdaptorExample(seen.r_in, prev, t_emb, text, seen.r_out, step, half))
            if own is not None:
                with torch.no_grad():
                    estimate = own(seen.r_in, prev, t_emb, text)
        previous = seen.r_out if estimate is None else estimate
    return AdaptorExample.join(examples)


class Trajectories(LightningDataModule):
    """A fresh set of trajectories every epoch, from a random subset of the prompts, kept on the teacher's device.

    An epoch is one set, seen `passes` times: the teacher's roll-outs cost far more than the adaptor's steps.
    Sets depend on the seed and the epoch alone, so that a resumed run sees what an uninterrupted one would have.
    """

    def __init__(
        self,
        setup: Setup,
        prompts: Sequence[Prompt],
        prompts_per_epoch: int = 256,
        passes: int = 6,
        batch_size: int = 16,
        generation_batch_size: int = 64,
        seed: int = 0,
        features: str = "teacher",
    ) -> None:
        super().__init__()
        if not setup.schedule.adaptor_steps(setup.calls):
            raise ValueError(
                f"schedule {setup.schedule} has no adaptor steps to train on: say schedule=clock2, or another"
            )
        if features not in ("teacher", "own"):
            raise ValueError(f"no features {features!r}: say teacher, or own (the adaptor's after an adaptor step)")
        self._setup, self.prompts, self.seed, self.features = setup, prompts, seed, features
        self.prompts_per_epoch, self.passes = min(prompts_per_epoch, len(prompts)), passes
        self.batch_size, self.generation_batch_size = batch_size, generation_batch_size

    def train_dataloader(self) -> DataLoader[AdaptorExample]:
        trainer, epoch = self.trainer, self.trainer.current_epoch
        adaptor = trainer.lightning_module.adaptor if self.features == "own" else None
        examples = self.examples(epoch, trainer.global_rank, trainer.world_size, adaptor)
        order = torch.Generator().manual_seed(self.seed * 100_003 + epoch)
        return DataLoader(
            examples,  # type: ignore[arg-type]
            sampler=_Passes(examples.half, self.passes, self.batch_size, order),
            batch_size=None,
        )

    def examples(self, epoch: int, rank: int = 0, ranks: int = 1, own: Adaptor | None = None) -> AdaptorExample:
        rng = random.Random(f"{self.seed}/{epoch}")
        chosen = rng.sample(list(self.prompts), self.prompts_per_epoch)[rank::ranks]
        batches = list(chunks(chosen, self.generation_batch_size))
        seed = (self.seed + 1) * 1_000_000 + epoch  # noise that no evaluation uses
        bar = tqdm(batches, f"epoch {epoch}: teacher's trajectories", leave=False, disable=rank > 0)
        return AdaptorExample.join([unroll(self._setup, batch, seed, own) for batch in bar])


class _Passes:
    """Index batches: the whole set in a new order, several times; guidance's two halves of a step stay together."""

    def __init__(self, half: Tensor, passes: int, batch_size: int, order: torch.Generator) -> None:
        negative, positive = ((half == h).nonzero().flatten() for h in (0, 1))
        self.pairs = torch.stack([negative, positive] if len(negative) else [positive])
        self.passes, self.order = passes, order
        self.batch_size = max(1, batch_size // len(self.pairs))

    def __len__(self) -> int:
        return self.passes * -(-self.pairs.shape[1] // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.passes):
            for chosen in torch.randperm(self.pairs.shape[1], generator=self.order).split(self.batch_size):
                yield self.pairs[:, chosen].flatten()
