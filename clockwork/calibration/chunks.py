"""Chunks of a batch of captions, with all branches of guidance of each: what the UNet runs on at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from clockwork.adaptors import FullStep, History
from clockwork.sampling.denoisers import Denoised
from clockwork.teachers import Condition
from clockwork.unet.conditioning import select_examples

Chunk = tuple[Tensor, Tensor, Condition, History]  # sample, timestep, condition and history of some captions


@dataclass(frozen=True)
class Chunks:
    """A batch of captions, divided.

    Attributes:
        sample: Scaled latents, `batch × channels × height × width`, or of videos as their UNet has them.
        t: The timestep, a scalar or one per example.
        condition: The prompts' conditions, one branch of guidance after another.
        history: The features of earlier steps.
        size: Captions per chunk.
        num_frames: Number of frames per example of a video; 1 for images.
        num_branches: Number of branches of guidance; 1 without guidance.
    """

    sample: Tensor
    t: Tensor
    condition: Condition
    history: History
    size: int
    num_frames: int = 1
    num_branches: int = 1

    @property
    def num_captions(self) -> int:
        """Number of captions."""
        return len(self.sample) // self.num_branches

    @property
    def indices(self) -> list[Tensor]:
        """Indices into the batch of each chunk, one branch after another."""
        captions = torch.arange(self.num_captions, device=self.sample.device)
        return [
            torch.cat([part + branch * len(captions) for branch in range(self.num_branches)])
            for part in captions.split(self.size)
        ]

    def __iter__(self) -> Iterator[Chunk]:
        return self.after(0)

    def after(self, count: int) -> Iterator[Chunk]:
        """Yields what the UNet and the adaptor read of each chunk.

        Args:
            count: Number of chunks to leave out.
        """
        batch, history = len(self.sample), self.history
        for index in self.indices[count:]:
            select = partial(select_examples, index=index, batch=batch, num_frames=self.num_frames)
            past = history.map(select)
            if history.output_prev is not None:  # the features are those of the positive half
                captions = index[len(index) // 2 :] - batch // 2
                features = history.map(partial(select_examples, index=captions, batch=batch // 2))
                past = replace(features, output_prev=past.output_prev)
            yield self.sample[index], select(self.t), self.condition.select(index, batch, self.num_frames), past

    def join(self, parts: Sequence[Denoised]) -> Denoised:
        """Joins the results of all chunks, in the order of the whole batch.

        Args:
            parts: The result of each chunk.
        """
        order = torch.argsort(torch.cat(self.indices))

        def join(features: Sequence[Tensor | None]) -> Tensor:
            joined = torch.cat([part for part in features if part is not None])
            return select_examples(joined, order, len(order), self.num_frames)

        output, r_in, r_out = (join([getattr(part, name) for part in parts]) for name in ("output", "r_in", "r_out"))
        first, steps = parts[0], list(zip(*(part.history.full_steps for part in parts), strict=True))
        history = History(r_out, r_in)
        if first.history.output_prev is not None:
            r_outs, r_ins = ([getattr(part.history, name) for part in parts] for name in ("r_out_prev", "r_in_prev"))
            history = History(join(r_outs), join(r_ins), output_prev=output)
        full_steps = tuple(
            FullStep(same[0].step, join([full.r_in for full in same]), join([full.r_out for full in same]))
            for same in steps
        )
        return Denoised(output, r_in, r_out, first.t_emb, first.full, replace(history, full_steps=full_steps))


def observations(features: Tensor, num_branches: int, count: int, captions: list[int]) -> list[Tensor]:
    """Returns the features of some captions of a chunk as observations.

    Args:
        features: One branch after another, `num_branches count … × channels × height × width`, where `…` are frames.
        num_branches: Number of branches of guidance.
        count: Number of captions.
        captions: Indices of those that are selected.

    Returns:
        Of each branch, `positions × channels`.
    """
    index = torch.tensor(captions, dtype=torch.int64, device=features.device)
    by_branch = features.unflatten(0, (num_branches, count, -1))
    return [branch[index].permute(0, 1, 3, 4, 2).flatten(0, 3) for branch in by_branch]
