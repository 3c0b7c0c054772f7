"""FLOPs of text-guided editing: the paper's equations 4 to 6, as printed and as they must be meant.

Pure arithmetic: a cost is an int, or `Flops` in its three conventions at once.
"""

from typing import Any, Protocol, Self, TypeVar

GENERATION_BATCH = 3  # the cached latent with the empty prompt, the target prompt, the negative prompt
GENERATION_STEPS = 50


class Cost(Protocol):
    def __add__(self, other: Any, /) -> Self: ...

    def __mul__(self, times: int, /) -> Self: ...


C = TypeVar("C", bound=Cost)


def full_steps(steps: int, clock: int, as_ran: bool = True) -> int:
    """How often the whole UNet runs: ceil(n / N), as the first step always is full; `n div N` is what the equations
    print, one too few wherever N does not divide n."""
    return -(-steps // clock) if as_ran else steps // clock


def inversion(steps: int, clock: int, full: C, adaptor: C, as_ran: bool = True) -> C:
    """Equation 4, at batch 1: `n_full · F_full + (n − n_full) · F_adaptor`. Clock 1 is the UNet without a clock.

    `full` and `adaptor` are passes at batch 1.
    """
    whole = full_steps(steps, clock, as_ran)
    return full * whole + adaptor * (steps - whole)


def generation(steps: int, clock: int, full: C, adaptor: C, as_ran: bool = True, as_printed: bool = False) -> C:
    """Equation 5, at batch 3: `3 · (n_full · F_full + (n − n_full) · F_adaptor)`.

    `as_printed`: without the bracket, the 3 on the first term alone. Only with the bracket do 1000 + 50 steps save
    the 33% that the paper states.
    """
    if not as_printed:
        return inversion(steps, clock, full, adaptor, as_ran) * GENERATION_BATCH
    whole = full_steps(steps, clock, as_ran)
    return full * (GENERATION_BATCH * whole) + adaptor * (steps - whole)


def generation_steps(inversion_steps: int) -> int:
    """50, or as many as the inversion has below that (Figures 6 and 15)."""
    return min(inversion_steps, GENERATION_STEPS)


def editing(inversion_steps: int, clock: int, full: C, adaptor: C, as_ran: bool = True, as_printed: bool = False) -> C:
    """Equation 6: inversion and generation of one edit, with the same clock."""
    steps = generation_steps(inversion_steps)
    inverted = inversion(inversion_steps, clock, full, adaptor, as_ran)
    return inverted + generation(steps, clock, full, adaptor, as_ran, as_printed)
