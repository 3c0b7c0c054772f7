"""What a roll-out's steps leave for the adaptor of the next: only what the adaptor declares that it reads."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from clockwork.adaptors.base import Adaptor


@dataclass(frozen=True)
class FullStep:
    """The features at the cut on a full step.

    Attributes:
        step: The step, from 1; a tensor of one in a compiled graph.
        r_in: Features that left the kept down layers, `batch × channels × height × width`; None if the adaptor does not
            read `r_in`.
        r_out: Features that entered the kept up layers, `batch × channels × height × width`.
    """

    step: Any
    r_in: Tensor | None
    r_out: Tensor


@dataclass(frozen=True)
class History:
    """The features of earlier steps that an adaptor reads; empty before the first step.

    It is passed from step to step and never changed.

    Attributes:
        r_out_prev: `r_out` of the previous step: the low-res path's, or the adaptor's estimate of it.
        r_in_prev: `r_in` of the previous step.
        full_steps: The last full steps, the latest first.
        output_prev: Predictions of the previous step for both halves of guidance, `batch × channels × height × width`,
            for an adaptor with which only the positive half runs. All features are then those of this half.
    """

    r_out_prev: Tensor | None = None
    r_in_prev: Tensor | None = None
    full_steps: tuple[FullStep, ...] = ()
    output_prev: Tensor | None = None

    def after(
        self, adaptor: "Adaptor | None", step: int, r_in: Tensor, r_out: Tensor, output: Tensor, full: bool
    ) -> "History":
        """Returns the history after a step.

        Args:
            adaptor: The adaptor; what it does not read is not kept. Without one nothing is.
            step: The step, from 1.
            r_in: The step's `r_in`, `batch × channels × height × width`.
            r_out: The step's `r_out`, `batch × channels × height × width`.
            output: The step's predictions, `batch × channels × height × width`.
            full: Whether the step was a full one.
        """
        inputs = () if adaptor is None else adaptor.inputs
        full_steps = self.full_steps
        if full and adaptor is not None and "full_steps" in inputs:
            latest = FullStep(step, r_in if "r_in" in inputs else None, r_out)
            full_steps = (latest, *full_steps)[: adaptor.num_full_steps]
        r_out_prev, r_in_prev = (r_out if "r_out_prev" in inputs else None, r_in if "r_in_prev" in inputs else None)
        output_prev = None if adaptor is None or adaptor.negative_map is None else output
        return History(r_out_prev, r_in_prev, full_steps, output_prev)

    def map(self, function: Callable[[Tensor], Tensor]) -> "History":
        """Applies a function to all features, for example a cast or the selection of examples.

        Args:
            function: The function of one tensor, `batch × channels × height × width`.
        """

        def each(features: Tensor | None) -> Tensor | None:
            return None if features is None else function(features)

        full_steps = tuple(FullStep(full.step, each(full.r_in), function(full.r_out)) for full in self.full_steps)
        return History(each(self.r_out_prev), each(self.r_in_prev), full_steps, each(self.output_prev))


NO_HISTORY = History()  # before the first step, and where the features of earlier steps may not be used
