"""How a calibration fits its maps."""

from dataclasses import dataclass

from clockwork.adaptors.linear import TERMS
from clockwork.calibration.joint import JointEquations
from clockwork.calibration.least_squares import RIDGES, NormalEquations
from clockwork.errors import UserError, check_number, check_whole


@dataclass(frozen=True)
class FitOptions:
    """How maps are fitted.

    Attributes:
        terms: What the maps read; see `Linear`.
        rank: Rank of the maps; None for maps that are not factored.
        joint: Whether the map of each branch of guidance reads the terms of all.
        positive_only: Whether adaptor steps run the positive half of guidance only, and a further map gives the
            negative half's prediction.
        guided_weight: Weight of the error that guidance makes of all branches', beside that of each. Joint maps
            depend on it only through the choice of the ridge, and with a rank.
        ridges: Strengths of the ridge to choose from.
        held_out_every: Every how many captions one is held out to choose the ridge; of fewer captions, the last is.
            None to hold out none.
        batch: Captions per UNet call.

    Raises:
        UserError: If a number is out of range.
    """

    terms: tuple[str, ...] = TERMS
    rank: int | None = None
    joint: bool = False
    positive_only: bool = False
    guided_weight: float = 1.0
    ridges: tuple[float, ...] = RIDGES
    held_out_every: int | None = 8
    batch: int = 8

    def __post_init__(self) -> None:
        if self.joint and self.positive_only:
            raise UserError("joint maps read both halves of guidance, so both have to run: leave out positive_only")
        if self.rank is not None:
            check_whole("rank", self.rank, 1)
        if self.held_out_every is not None:
            check_whole("held_out_every", self.held_out_every, 2)
        check_whole("batch", self.batch, 1)
        check_number("guided_weight", self.guided_weight, 0)
        if not self.ridges or min(self.ridges) <= 0:
            raise UserError(f"ridges {list(self.ridges)} are not possible: pass at least one, all above zero")

    def equations(self, num_branches: int) -> type[NormalEquations]:
        """Returns the kind of equations to solve for a number of branches of guidance."""
        return JointEquations if self.joint and num_branches > 1 else NormalEquations

    def num_unknowns(self, num_inputs: int, num_branches: int) -> int:
        """Returns the number of inputs of a map, the constant included.

        Args:
            num_inputs: Number of channels of all terms together, of one branch.
            num_branches: Number of branches of guidance, 1 without guidance.
        """
        return num_inputs * (num_branches if self.joint else 1) + 1

    def hold_out_period(self, captions: int) -> int | None:
        """Returns every how many of some captions one is held out; None if none is.

        Args:
            captions: Number of captions.
        """
        return None if self.held_out_every is None or captions < 2 else min(self.held_out_every, captions)
