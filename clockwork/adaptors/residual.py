"""A trained correction on top of a frozen adaptor, for example a ResNet on top of the calibrated linear adaptor."""

from typing import Any, final

from torch import Tensor

from clockwork.adaptors.base import HISTORY_INPUTS, KINDS, Adaptor
from clockwork.adaptors.history import FullStep
from clockwork.adaptors.negative import NegativeMap
from clockwork.errors import UserError

PARTS = ("base", "correction")


@final
class Residual(Adaptor, kind="residual"):
    """Corrects the estimate of a frozen adaptor: `r_out_hat = base(…) + f(r_in, base(…), t_emb, text_emb)`.

    `f` is what the paper's adaptors add to `r_out_prev` (Section 4.1). The base's estimate replaces `r_out_prev`, so
    training starts exactly at the base. The weights of both are saved in one folder.

    Args:
        base: The adaptor to correct. Its weights are frozen.
        correction: An adaptor that adds to `r_out_prev`, such as `ResNet` or `UNet`.

    Raises:
        UserError: If the correction does not read `r_out_prev`, or is for features of other sizes than the base.
    """

    def __init__(self, base: Adaptor, correction: Adaptor) -> None:
        if "r_out_prev" not in correction.inputs:
            raise UserError(
                f"the {correction.kind} adaptor does not read r_out_prev, which the estimate of the {base.kind} "
                "adaptor replaces: add r_out_prev to its inputs"
            )
        sizes = [(dims.r_in, dims.r_out, dims.upscale) for dims in (base.dims, correction.dims)]
        if base.has_weights and sizes[0] != sizes[1]:
            raise UserError(
                f"the {base.kind} adaptor is for other features than the {correction.kind} adaptor: {sizes[0]} and "
                f"{sizes[1]} (channels of r_in, channels of r_out, upscale); use one of the same teacher and cut"
            )
        super().__init__(correction.dims, (*base.inputs, *correction.inputs))
        self.base, self.correction = base.requires_grad_(False), correction
        self.num_full_steps = max(base.num_full_steps, correction.num_full_steps)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Residual":
        """Builds both adaptors, without their weights, from what `config` returned."""
        return cls(*(KINDS[config[part]["kind"]].from_config(config[part]["adaptor"]) for part in PARTS))

    def config(self) -> dict[str, Any]:
        """Returns the kinds and arguments of both adaptors as plain data."""
        parts = {part: getattr(self, part) for part in PARTS}
        return {**super().config(), **{n: {"kind": part.kind, "adaptor": part.config()} for n, part in parts.items()}}

    def required_dims(self) -> set[tuple[str, int]]:
        """Returns what both adaptors require."""
        return self.base.required_dims() | self.correction.required_dims()

    @property
    def reads_both_halves(self) -> bool:
        """Whether one of both adaptors reads the other half of guidance."""
        return self.base.reads_both_halves or self.correction.reads_both_halves

    @property
    def negative_map(self) -> NegativeMap | None:
        """What predicts the negative half of guidance: that of the base."""
        return self.base.negative_map

    def padded(self, full_steps: tuple[FullStep, ...]) -> tuple[FullStep, ...]:
        """Adds full steps that change no estimate of either adaptor, if that is possible."""
        readers = [part for part in (self.base, self.correction) if "full_steps" in part.inputs]
        return readers[0].padded(full_steps) if len(readers) == 1 else full_steps

    def forward(
        self,
        r_in: Tensor | None,
        r_out_prev: Tensor | None,
        t_emb: Tensor | None,
        text_emb: Tensor | None,
        **history: Any,
    ) -> Tensor:
        """Estimates `r_out`; arguments and result as in `Adaptor.forward`."""
        estimate = self.base(r_in, r_out_prev, t_emb, text_emb, **_declared(self.base, history))
        r_out: Tensor = self.correction(r_in, estimate, t_emb, text_emb, **_declared(self.correction, history))
        return r_out


def _declared(adaptor: Adaptor, history: dict[str, Any]) -> dict[str, Any]:
    """Returns what an adaptor declares of the past, with as many full steps as it reads."""
    declared = {name: history[name] for name in HISTORY_INPUTS if name in adaptor.inputs and name in history}
    if "full_steps" in declared:
        declared["full_steps"] = declared["full_steps"][: adaptor.num_full_steps]
    return declared
