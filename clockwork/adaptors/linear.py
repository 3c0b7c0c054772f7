"""The adaptor in closed form: one linear map per adaptor step and half of guidance, at each position by itself.

`clockwork.calibration` fits the maps. On every adaptor step `r_out = r_out_prev + W x + b`, where `x` are features of
this step and of the past. It starts as the identity adaptor: with all maps zero.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clockwork.adaptors.base import HISTORY_INPUTS, Adaptor, FeatureDims
from clockwork.adaptors.blocks import nearest_index
from clockwork.adaptors.history import FullStep
from clockwork.adaptors.negative import NegativeMap
from clockwork.errors import UserError
from clockwork.unet.conditioning import HALVES

TERMS = ("r_out_prev", "r_in", "r_in_change", "r_out_trend", "r_in_trend")


@final
class Linear(Adaptor, kind="linear"):
    """Adds to `r_out_prev` a linear map of the terms, 1 × 1, that belongs to the step and to the branch of guidance.

    On a step that has no map, that of the nearest step is used; a term that the past does not have counts as zero.

    Args:
        dims: Channels of the features at the cut, and widths of the embeddings.
        steps: The adaptor steps, from 1.
        terms: What the maps read: `r_out_prev`; `r_in`; `r_in_change`, the change of `r_in` since the previous step;
            `r_out_trend` and `r_in_trend`, the change of each between the last two full steps.
        branches: Names of the branches of guidance that have a map each, in the order of the UNet's batch; without
            guidance `"conditional"` alone.
        rank: Number of channels between the two factors of each map; None for maps that are not factored.
        joint: Whether the map of each branch reads the terms of all. Then examples of all branches have to be in one
            batch, in their order; examples without the other branches are taken for all of them.
        negative_channels: Number of channels of the UNet's prediction if adaptor steps run the positive half of
            guidance only, whose maps there are then, and a further map gives the negative one's prediction; 0 if they
            run both.

    Attributes:
        calibration: Figures of the calibration that fitted the maps, if they are known.

    Raises:
        UserError: If there are no steps, a term is unknown, or there are none, if `"conditional"` is not among the
            branches, or the adaptor is for the positive half only and has maps for others.
    """

    calibration: dict[str, Any] | None = None

    def __init__(
        self,
        dims: FeatureDims,
        steps: Sequence[int],
        terms: Sequence[str] = TERMS,
        branches: Sequence[str] = HALVES,
        rank: int | None = None,
        joint: bool = False,
        negative_channels: int = 0,
    ) -> None:
        if not isinstance(steps, Collection) or not steps or not terms or set(terms) - set(TERMS):
            raise UserError(f"a linear adaptor needs adaptor steps, and terms of {', '.join(TERMS)}: pass some of each")
        if any(type(step) is not int or step < 1 for step in steps) or len(set(steps)) < len(steps):
            raise UserError("the steps of a linear adaptor have to be whole numbers from 1 on, each once: correct them")
        branches = tuple(branches)
        if "conditional" not in branches or len(set(branches)) < len(branches):
            raise UserError(
                f"the branches {list(branches)} are not possible: name each once, with conditional among them"
            )
        if negative_channels < 0 or (negative_channels and len(branches) > 1):
            raise UserError(
                f"negative_channels={negative_channels} is not possible with {len(branches)} branches: use 0 for an "
                'adaptor of both halves of guidance, and branches=("conditional",) for one of the positive half only'
            )
        super().__init__(dims, ("r_in", "r_out_prev", *HISTORY_INPUTS))
        self.steps, self.terms = tuple(sorted(steps)), tuple(term for term in TERMS if term in terms)
        self.branches, self.rank, self.joint = branches, rank, joint and len(branches) > 1
        maps, width = (len(self.steps), len(branches)), dims.r_out if rank is None else rank
        self.weight = nn.Parameter(torch.zeros(*maps, width, self.num_inputs * (len(branches) if self.joint else 1)))
        self.bias = nn.Parameter(torch.zeros(*maps, dims.r_out))
        self.up = None if rank is None else nn.Parameter(torch.zeros(*maps, dims.r_out, rank))
        self.negative_channels = negative_channels
        self.negative = NegativeMap(self.steps, negative_channels) if negative_channels else None

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain data."""
        arguments = {
            "steps": list(self.steps),
            "terms": list(self.terms),
            "branches": list(self.branches),
            "rank": self.rank,
            "joint": self.joint,
        }
        of_negative = {"negative_channels": self.negative_channels} if self.negative_channels else {}
        return {**super().config(), **arguments, **of_negative}

    @property
    def num_inputs(self) -> int:
        """Number of channels of all terms together, of one branch."""
        return sum(self.term_channels(term) for term in self.terms)

    @property
    def reads_both_halves(self) -> bool:
        """Whether the estimate of an example depends on the other branches of guidance."""
        return self.joint

    @property
    def negative_map(self) -> NegativeMap | None:
        """What predicts the negative half of guidance, if adaptor steps run the positive half only."""
        return self.negative

    def term_channels(self, term: str) -> int:
        """Returns the number of channels of a term."""
        return self.dims.r_out if term.startswith("r_out") else self.dims.r_in

    def forward(
        self,
        r_in: Tensor,
        r_out_prev: Tensor | None,
        t_emb: Tensor | None = None,
        text_emb: Tensor | None = None,
        *,
        r_in_prev: Tensor | None = None,
        full_steps: tuple[FullStep, ...] = (),
        step: int | Tensor = 1,
        branch: Tensor | None = None,
    ) -> Tensor:
        """Estimates `r_out`; arguments and result as in `Adaptor.forward`."""
        if r_out_prev is None:
            raise UserError("a linear adaptor changes r_out of the previous step: start with a full step")
        values = term_values(self.terms, r_in, r_out_prev, r_in_prev, full_steps)
        weight = self._maps(self._of_step(self.weight, step), branch)
        size, start = r_out_prev.shape[-2:], 0
        # Maps at each position and nearest interpolation commute: terms of low resolution are interpolated once mapped.
        mapped: dict[bool, Tensor] = {}  # by whether it has the size of r_out; a dynamic size has no hash
        for term in self.terms:
            stop = start + self.term_channels(term)
            value = values[term]
            if value is not None:
                value = value if value.shape[-2] <= size[0] else F.interpolate(value, size=tuple(size))
                product = _at_each_position(self._columns(weight, start, stop), self._inputs(value, branch))
                is_large = product.shape[-2:] == size
                mapped[is_large] = mapped[is_large] + product if is_large in mapped else product
            start = stop
        change = sum(x if x.shape[-2:] == size else F.interpolate(x, size=tuple(size)) for x in mapped.values())
        if isinstance(change, Tensor):  # else no term is known
            if self.joint and branch is not None:
                change = torch.cat(change.chunk(len(self.branches), 1))
            if self.up is not None:
                change = _at_each_position(self._of_examples(self._of_step(self.up, step), branch), change)
        bias = self._of_examples(self._of_step(self.bias, step), branch)
        return r_out_prev + change + bias[..., None, None]

    def padded(self, full_steps: tuple[FullStep, ...]) -> tuple[FullStep, ...]:
        """Repeats the only full step: a trend from a step to itself is zero, as if there were none."""
        return full_steps * 2 if len(full_steps) == 1 else full_steps

    def _of_step(self, of_steps: Tensor, step: int | Tensor) -> Tensor:
        """Returns what belongs to the nearest step that has a map, the earlier one of two."""
        if isinstance(step, int):
            return of_steps[nearest_index(self.steps, step)]
        # A number would make a graph of its own for every step. The sum of two neighbours is twice where they meet.
        # Borders are compared one by one, because a list would be a tensor on the CPU, which CUDA graphs do not allow.
        index = sum(((2 * step > a + b).long() for a, b in pairwise(self.steps)), torch.zeros_like(step))
        return of_steps.index_select(0, index.reshape(1))[0]

    def _maps(self, of_branches: Tensor, branch: Tensor | None) -> Tensor:
        """Returns the matrix of all examples, or one each. If joint, its outputs are those of all branches."""
        if not self.joint or branch is None:
            return self._of_examples(of_branches, branch)
        return of_branches.flatten(0, 1)

    def _inputs(self, term: Tensor, branch: Tensor | None) -> Tensor:
        """Returns what the maps read of a term; if joint, all branches side by side."""
        if not self.joint:
            return term
        count = len(self.branches)
        return torch.cat([term] * count if branch is None else term.chunk(count), 1)

    def _columns(self, weight: Tensor, start: int, stop: int) -> Tensor:
        """Returns the part of the maps that reads one term; if joint, that of all branches."""
        if not self.joint:
            return weight[..., start:stop]
        firsts = range(0, weight.shape[-1], self.num_inputs)
        return torch.cat([weight[..., first + start : first + stop] for first in firsts], -1)

    def _of_examples(self, of_branches: Tensor, branch: Tensor | None) -> Tensor:
        """Returns what belongs to each example's branch; without the batch's axis if all examples are conditional."""
        if branch is None or len(self.branches) == 1:
            return of_branches[self.branches.index("conditional")]
        return of_branches[branch]


def term_values(
    terms: Sequence[str],
    r_in: Tensor,
    r_out_prev: Tensor,
    r_in_prev: Tensor | None,
    full_steps: tuple[FullStep, ...],
) -> dict[str, Tensor | None]:
    """Computes the terms of a step.

    Args:
        terms: Their names, of `TERMS`.
        r_in: Features that leave the kept down layers, `batch × channels × height × width`.
        r_out_prev: `r_out` of the previous step, `batch × channels × height × width`.
        r_in_prev: `r_in` of the previous step, if it is known.
        full_steps: The last full steps, the latest first.

    Returns:
        Each term, `batch × channels × height × width`; None where the past does not have it.
    """
    latest, before = full_steps[:2] if len(full_steps) >= 2 else (None, None)
    values = {
        "r_out_prev": r_out_prev,
        "r_in": r_in,
        "r_in_change": _change(r_in, r_in_prev),
        "r_out_trend": _change(latest.r_out, before.r_out) if latest and before else None,
        "r_in_trend": _change(latest.r_in, before.r_in) if latest and before else None,
    }
    return {term: values[term] for term in terms}


def _change(later: Tensor | None, earlier: Tensor | None) -> Tensor | None:
    """Returns the difference of features, if both are known."""
    return None if later is None or earlier is None else later - earlier


def _at_each_position(weight: Tensor, features: Tensor) -> Tensor:
    """Applies a matrix, or one per example, at each position of features, `batch × channels × height × width`."""
    if weight.dim() == 2:
        return F.conv2d(features, weight[..., None, None])
    return torch.matmul(weight, features.flatten(2)).unflatten(2, features.shape[-2:])
