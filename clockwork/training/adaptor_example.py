"""What an adaptor is trained on: its inputs of some steps, its target, and what losses read besides."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clockwork.adaptors import Adaptor, FullStep, History, run_adaptor
from clockwork.training.store import Batch


@dataclass(frozen=True)
class AdaptorExample(Batch):
    """Inputs and target of an adaptor. Features and `t_emb` are in the teacher's precision.

    The features of earlier steps are those that the adaptor declares (`clockwork.adaptors.HISTORY_INPUTS`), and None
    otherwise. Latents, timesteps and captions are those of losses that run the UNet, and None without such a loss.

    Attributes:
        r_in: Features that enter the low-res path, `batch × channels × height × width`.
        r_out_prev: Features that left it on the previous step, `batch × channels × height × width`: the teacher's, or
            the adaptor's estimate of them.
        t_emb: Time embedding, `batch × time width`.
        text_emb: Text embedding, `batch × text width`; the width is 0 for adaptors that do not read text.
        r_out: The teacher's features that leave the low-res path, of the shape of `r_out_prev`: the target.
        step: Step of the roll-out, from 1, `batch`.
        conditional: 0 in guidance's unconditional half and 1 in the prompts' half, the index in `HALVES`, `batch`.
        past_steps: The example's step, and then the full steps that `full_r_out` has, the latest first. They stay on
            the host, because adaptors are called with numbers.
        r_in_prev: `r_in` of the previous step, of the shape of `r_in`.
        full_r_in: `r_in` of the last full steps, `batch × full steps × channels × height × width`, the latest first and
            zeros at the end if there were fewer.
        full_r_out: `r_out` of the last full steps, as `full_r_in`.
        latents: Latents that enter the step, scaled for the UNet, in float32, `batch × channels × height × width`.
        timestep: The solver's timestep, `batch`.
        captions: Captions, one per example; also in the unconditional half.
    """

    r_in: Tensor
    r_out_prev: Tensor
    t_emb: Tensor
    text_emb: Tensor
    r_out: Tensor
    step: Tensor
    conditional: Tensor
    past_steps: tuple[tuple[int, ...], ...] | None = None
    r_in_prev: Tensor | None = None
    full_r_in: Tensor | None = None
    full_r_out: Tensor | None = None
    latents: Tensor | None = None
    timestep: Tensor | None = None
    captions: tuple[str, ...] | None = None

    def estimate(self, adaptor: Adaptor, guided: bool) -> Tensor:
        """Runs an adaptor on the examples, as the denoiser runs it on their steps.

        Args:
            adaptor: The adaptor, in the precision of the examples.
            guided: Whether the examples are of guidance's two halves.

        Returns:
            The estimates of `r_out`, `batch × channels × height × width`.
        """
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, past in enumerate(self.past_steps or ()):
            groups.setdefault(past, []).append(row)
        if len(groups) <= 1:  # also without history, where steps do not matter
            return self._estimate(adaptor, guided, next(iter(groups), (0,)), None)
        order = torch.tensor([row for rows in groups.values() for row in rows])
        of_groups = order.to(self.r_in.device, non_blocking=True).split([len(rows) for rows in groups.values()])
        estimates = [self._estimate(adaptor, guided, *group) for group in zip(groups, of_groups, strict=True)]
        return torch.cat(estimates)[order.argsort().to(self.r_in.device, non_blocking=True)]

    def _estimate(self, adaptor: Adaptor, guided: bool, past: tuple[int, ...], rows: Tensor | None) -> Tensor:
        """Runs an adaptor on those examples that are of one step, after the same full steps; on all for None."""

        def chosen(values: Tensor) -> Tensor:
            return values if rows is None else values[rows]

        step, *full_steps = past
        full = []
        for place, number in enumerate(full_steps):
            assert self.full_r_out is not None
            r_in = None if self.full_r_in is None else chosen(self.full_r_in[:, place])
            full.append(FullStep(number, r_in, chosen(self.full_r_out[:, place])))
        r_in_prev = None if self.r_in_prev is None or step == 1 else chosen(self.r_in_prev)
        text_emb = chosen(self.text_emb) if self.text_emb.shape[1] else None
        branch = chosen(self.conditional) if guided else None
        inputs = chosen(self.r_in), chosen(self.t_emb), text_emb, branch
        return run_adaptor(adaptor, *inputs, step, History(chosen(self.r_out_prev), r_in_prev, tuple(full)))


def history_fields(adaptor: Adaptor | None, step: int, history: History, r_in: Tensor) -> dict[str, Any]:
    """Returns the fields of examples that hold what an adaptor declares of the past.

    Args:
        adaptor: The adaptor, if its inputs are known.
        step: The step, from 1.
        history: The features of the steps before it, as the adaptor receives them.
        r_in: The step's own `r_in`, `batch × channels × height × width`.
    """
    if adaptor is None or not {"r_in_prev", "full_steps", "step"} & set(adaptor.inputs):
        return {}
    full_steps = tuple(full.step for full in history.full_steps)
    fields: dict[str, Any] = {"past_steps": ((step, *full_steps),) * len(r_in)}
    if "r_in_prev" in adaptor.inputs:
        fields["r_in_prev"] = torch.zeros_like(r_in) if history.r_in_prev is None else history.r_in_prev
    for name in ("r_in", "r_out"):
        features = [x for full in history.full_steps if (x := getattr(full, name)) is not None]
        if features:
            padding = [torch.zeros_like(features[0])] * (adaptor.num_full_steps - len(features))
            fields[f"full_{name}"] = torch.stack([*features, *padding], dim=1)
    return fields


def history_bytes(adaptor: Adaptor | None, r_in: int, r_out: int) -> int:
    """Returns the memory of `history_fields` of one example, without the numbers on the host.

    Args:
        adaptor: The adaptor, if its inputs are known.
        r_in: Memory of `r_in` in bytes.
        r_out: Memory of `r_out` in bytes.
    """
    if adaptor is None:
        return 0
    of_full_step = r_out + (r_in if "r_in" in adaptor.inputs else 0)
    full_steps = adaptor.num_full_steps * of_full_step if "full_steps" in adaptor.inputs else 0
    return full_steps + (r_in if "r_in_prev" in adaptor.inputs else 0)
