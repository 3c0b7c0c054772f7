"""FLOPs of text-guided editing by the paper's equations 4 to 6, as printed and corrected.

The functions only add and multiply: a cost is an int, or `Flops` with all three conventions at once.
"""

from typing import Any, Protocol, Self, TypeVar

GENERATION_BATCH = 3  # source with the empty prompt, target prompt, negative prompt
GENERATION_STEPS = 50


class Cost(Protocol):
    """Anything that can be added and multiplied by an int."""

    def __add__(self, other: Any, /) -> Self: ...

    def __mul__(self, times: int, /) -> Self: ...


C = TypeVar("C", bound=Cost)


def full_steps(steps: int, clock: int, as_ran: bool = True) -> int:
    """Computes the number of full steps of n steps with clock N.

    Args:
        steps: Number of steps n.
        clock: Period N of the clock.
        as_ran: ceil(n / N), the steps that run, because the first step is always full. False: n div N, as the
            equations print, which is one too few if N does not divide n.

    Returns:
        The number of full steps.
    """
    return -(-steps // clock) if as_ran else steps // clock


def inversion(steps: int, clock: int, full: C, adaptor: C, as_ran: bool = True) -> C:
    """Computes the cost of the inversion (equation 4, at batch 1): `n_full · F_full + (n − n_full) · F_adaptor`.

    Args:
        steps: Number of inversion steps n.
        clock: Period of the clock; 1 is the UNet without an adaptor.
        full: Cost of a full pass at batch 1.
        adaptor: Cost of an adaptor pass at batch 1.
        as_ran: How full steps are counted; see `full_steps`.

    Returns:
        The cost.
    """
    num_full_steps = full_steps(steps, clock, as_ran)
    return full * num_full_steps + adaptor * (steps - num_full_steps)


def generation(steps: int, clock: int, full: C, adaptor: C, as_ran: bool = True, as_printed: bool = False) -> C:
    """Computes the cost of the generation (equation 5, at batch 3): `3 · (n_full · F_full + (n − n_full) · F_adaptor)`.

    Args:
        steps: Number of generation steps n.
        clock: Period of the clock; 1 is the UNet without an adaptor.
        full: Cost of a full pass at batch 1.
        adaptor: Cost of an adaptor pass at batch 1.
        as_ran: How full steps are counted; see `full_steps`.
        as_printed: Without the bracket, the factor 3 on the first term alone. Only with the bracket do 1000 + 50 steps
            save the 33% that the paper states.

    Returns:
        The cost.
    """
    if not as_printed:
        return inversion(steps, clock, full, adaptor, as_ran) * GENERATION_BATCH
    num_full_steps = full_steps(steps, clock, as_ran)
    return full * (GENERATION_BATCH * num_full_steps) + adaptor * (steps - num_full_steps)


def generation_steps(inversion_steps: int) -> int:
    """Returns the number of generation steps: 50, or as many as the inversion has if fewer (Figures 6 and 15).

    Args:
        inversion_steps: Number of inversion steps.
    """
    return min(inversion_steps, GENERATION_STEPS)


def editing(inversion_steps: int, clock: int, full: C, adaptor: C, as_ran: bool = True, as_printed: bool = False) -> C:
    """Computes the cost of an edit (equation 6): inversion and generation, with the same clock.

    Args:
        inversion_steps: Number of inversion steps; that of generation steps follows from it (`generation_steps`).
        clock: Period of the clock; 1 is the UNet without an adaptor.
        full: Cost of a full pass at batch 1.
        adaptor: Cost of an adaptor pass at batch 1.
        as_ran: How full steps are counted; see `full_steps`.
        as_printed: Equation 5 without its bracket; see `generation`.

    Returns:
        The cost.
    """
    steps = generation_steps(inversion_steps)
    inverted = inversion(inversion_steps, clock, full, adaptor, as_ran)
    return inverted + generation(steps, clock, full, adaptor, as_ran, as_printed)
