"""The base class of adaptors (paper, Section 4.1 and Appendix A)."""

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from inspect import signature
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clockwork.adaptors.history import FullStep, History
from clockwork.adaptors.negative import NegativeMap
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint
from clockwork.unet.conditioning import HALVES

INPUTS = ("r_in", "r_out_prev", "t_emb", "text_emb")  # the paper's (equation 2), which every adaptor receives
HISTORY_INPUTS = ("r_in_prev", "full_steps", "step", "branch")  # passed by name to adaptors that declare them


@dataclass(frozen=True)
class FeatureDims:
    """Channels of the features at a cut, and widths of the two embeddings.

    Attributes:
        r_in: Channels of the features that leave the kept down layers.
        r_out: Channels of the features that enter the kept up layers.
        t_emb: Width of the UNet's time embedding.
        text_emb: Width of the text embedding; 0 without one.
        upscale: Resolution of `r_out` divided by that of `r_in`, 1 for the cut `stage1`, 2 for `stage1_upsampled`.

    Raises:
        UserError: A value is not a whole number of at least 0.
    """

    r_in: int
    r_out: int
    t_emb: int
    text_emb: int
    upscale: int = 1

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or not 0 <= value < 2**31:
                raise UserError(f"{name}={value!r} is not a number of channels: use a whole number of at least 0")


ANY_DIMS = FeatureDims(0, 0, 0, 0)  # of an adaptor without weights, which fits features of any dimensions
KINDS: dict[str, "type[Adaptor]"] = {}  # all adaptor classes that have been imported, by kind


class Adaptor(nn.Module):
    """A module that replaces the low-res path: `r_out_hat = phi(r_in, r_out_prev, t_emb, text_emb)` (equation 2).

    A subclass is final and declares its kind, which is stored in the folder of a saved adaptor:
    `class Blend(Adaptor, kind="blend")`. A class without a kind, or with that of another class, raises a `UserError`.

    Args:
        dims: Channels of the features at the cut, and widths of the embeddings.
        inputs: Which inputs the adaptor reads, of `INPUTS` and `HISTORY_INPUTS`; see `forward`.

    Attributes:
        has_weights: Whether adaptors of this class have weights, which are trained or fitted. Those without need no
            operating point of their own and fit features of any dimensions.
        num_full_steps: How many of the last full steps an adaptor receives that reads `full_steps`.
        branches: Names of the branches of guidance that an adaptor knows which reads `branch`.
        point: The operating point that the adaptor was made for, if it is known.

    Raises:
        UserError: If an input is unknown, or none of `r_in`, `r_out_prev` and `full_steps` is among them.
    """

    kind: ClassVar[str]
    has_weights: ClassVar[bool] = True
    num_full_steps: int = 2
    branches: tuple[str, ...] = HALVES
    point: OperatingPoint | None = None

    def __init_subclass__(cls, kind: str | None = None) -> None:
        super().__init_subclass__()
        name = f"{cls.__module__}.{cls.__qualname__}"
        if kind is None or not re.fullmatch(r"\w+", kind):
            raise UserError(f'{name} has no kind: write class {cls.__name__}(Adaptor, kind="{cls.__name__.lower()}")')
        other = KINDS.get(kind)
        if other is not None and f"{other.__module__}.{other.__qualname__}" != name:
            first = f"{other.__module__}.{other.__qualname__}"
            raise UserError(f"{name} has kind={kind!r}, and so has {first}: give one of them another kind")
        cls.kind = kind
        KINDS[kind] = cls

    def __init__(self, dims: FeatureDims, inputs: tuple[str, ...]) -> None:
        super().__init__()
        if not isinstance(dims, FeatureDims) or not isinstance(inputs, Iterable):
            raise UserError(f"{type(self).__name__} needs FeatureDims, not {dims!r:.50}, and its inputs: pass both")
        if unknown := set(inputs) - {*INPUTS, *HISTORY_INPUTS}:
            known = ", ".join((*INPUTS, *HISTORY_INPUTS))
            raise UserError(f"adaptor inputs {sorted(unknown)} are unknown: use some of {known}")
        if not {"r_in", "r_out_prev", "full_steps"} & set(inputs):
            raise UserError("an adaptor needs r_in, r_out_prev or full_steps: add one of them to its inputs")
        self.dims, self.inputs = dims, tuple(name for name in (*INPUTS, *HISTORY_INPUTS) if name in inputs)

    @abstractmethod
    def forward(self, *args: Any, **history: Any) -> Tensor:
        """Estimates `r_out`.

        Args:
            *args: The inputs of equation 2; those that the adaptor does not declare may be None:
                `r_in`, features that leave the kept down layers, `batch × channels × height × width`;
                `r_out_prev`, `r_out` of the previous step, `batch × channels × height × width`;
                `t_emb`, the UNet's time embedding, `batch × width`;
                `text_emb`, the text embedding of the prompts, `batch × width`.
            **history: By name, those of `HISTORY_INPUTS` that the adaptor declares:
                `r_in_prev`, `r_in` of the previous step, or None;
                `full_steps`, the last `num_full_steps` full steps as `FullStep`, the latest first, perhaps fewer;
                `step`, the index of this step, from 1; a tensor of one in a compiled graph;
                `branch`, the index in `branches` of each example's branch of guidance, int64, `batch`; None if all are
                conditional.

        Returns:
            The estimate of `r_out`, `batch × channels × height × width`.
        """

    def padded(self, full_steps: tuple[FullStep, ...]) -> tuple[FullStep, ...]:
        """Adds full steps that change no estimate, if that is possible: each number of them has a graph when compiled.

        Args:
            full_steps: The last full steps, the latest first, perhaps fewer than `num_full_steps`.
        """
        return full_steps

    def config(self) -> dict[str, Any]:
        """Returns the constructor's arguments as plain data, for `config.json`."""
        return {"dims": asdict(self.dims), "inputs": list(self.inputs)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Builds an adaptor, without its weights, from what `config` returned."""
        arguments = {name: value for name, value in config.items() if name not in ("dims", "inputs")}
        if "inputs" in signature(cls).parameters:  # else they are fixed
            arguments["inputs"] = tuple(config["inputs"])
        return cls(FeatureDims(**config["dims"]), **arguments)

    def required_dims(self) -> set[tuple[str, int]]:
        """Returns the dimensions of what the weights read and estimate, as names and values of `FeatureDims`."""
        if not self.has_weights or self.dims == ANY_DIMS:
            return set()
        read = {name for name in ("r_in", "t_emb", "text_emb") if name in self.inputs} | {"r_out"}
        if {"r_in_prev", "full_steps"} & set(self.inputs):
            read.add("r_in")
        if "r_out_prev" not in self.inputs:  # whose resolution is that of the estimate otherwise
            read.add("upscale")
        return {(name, getattr(self.dims, name)) for name in read}

    @property
    def reads_both_halves(self) -> bool:
        """Whether the estimate of an example depends on the other half of guidance, which has to be in its batch."""
        return False

    @property
    def negative_map(self) -> NegativeMap | None:
        """What predicts the negative half of guidance on adaptor steps, which then run the positive half only."""
        return None

    @property
    def dtype(self) -> torch.dtype | None:
        """Precision of the weights; None if the adaptor has none."""
        first = next(self.parameters(), None)
        return None if first is None else first.dtype

    @property
    def feature_channels(self) -> int:
        """Number of channels of `features`."""
        return self.dims.r_in * ("r_in" in self.inputs) + self.dims.r_out * ("r_out_prev" in self.inputs)

    def features(self, r_in: Tensor | None, r_out_prev: Tensor | None) -> Tensor:
        """Concatenates those of `r_in` and `r_out_prev` that are inputs.

        Args:
            r_in: Features that leave the kept down layers, `batch × channels × height × width`; interpolated to the
                resolution of `r_out`.
            r_out_prev: `r_out` of the previous step, `batch × channels × height × width`.

        Returns:
            The features, `batch × feature_channels × height × width`.

        Raises:
            UserError: If the adaptor reads `r_out_prev`, which is None on the first step.
        """
        features = []
        if "r_in" in self.inputs:
            assert r_in is not None
            size = r_out_prev.shape[-2:] if r_out_prev is not None else [n * self.dims.upscale for n in r_in.shape[-2:]]
            features.append(r_in if r_in.shape[-2:] == torch.Size(size) else F.interpolate(r_in, size=tuple(size)))
        if "r_out_prev" in self.inputs:
            if r_out_prev is None:
                raise UserError(
                    "this adaptor reads r_out of the previous step, which the first step does not have: "
                    "start with a full step"
                )
            features.append(r_out_prev)
        return torch.cat(features, dim=1)


def run_adaptor(
    adaptor: Adaptor,
    r_in: Tensor,
    t_emb: Tensor,
    text_emb: Tensor | None,
    branch: Tensor | None,
    step: int | Tensor,
    history: History,
) -> Tensor:
    """Calls an adaptor with the inputs that it declares, all in its precision.

    Args:
        adaptor: The adaptor.
        r_in: Features that leave the kept down layers, `batch × channels × height × width`.
        t_emb: The UNet's time embedding, `batch × width`.
        text_emb: Text embedding of the prompts, `batch × width`, if the adaptor reads it.
        branch: Index in `adaptor.branches` of each example's branch of guidance, `batch`; None if all are conditional.
        step: The step, from 1.
        history: The features of earlier steps.

    Returns:
        The adaptor's estimate of `r_out`.
    """
    by_name: dict[str, Any] = {"r_in_prev": history.r_in_prev, "full_steps": history.full_steps}
    by_name |= {"step": step, "branch": branch}
    declared = {name: value for name, value in by_name.items() if name in adaptor.inputs}
    r_out: Tensor = adaptor(r_in, history.r_out_prev, t_emb, text_emb, **declared)
    return r_out
