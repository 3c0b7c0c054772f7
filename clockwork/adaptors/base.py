"""What an adaptor is, and the blocks they are built from (paper, Section 4.1 and Appendix A)."""

import re
from abc import abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clockwork.errors import UserError

INPUTS = ("r_in", "r_out_prev", "t_emb", "text_emb")


@dataclass(frozen=True)
class FeatureDims:
    """Channels of the features at a cut, and of the two embeddings."""

    r_in: int
    r_out: int
    t_emb: int
    text_emb: int
    upscale: int = 1  # r_out's resolution over r_in's: 2 where an upsampler lies between them


KINDS: dict[str, "type[Adaptor]"] = {}  # every adaptor class that has been imported, by its kind


class Adaptor(nn.Module):
    """Replaces the low-res path: `r_out_hat = phi(r_in, r_out_prev, t_emb, text_emb)`.

    A subclass is final and names its kind, by which its folder finds it: `class Blend(Adaptor, kind="blend")`.

    Args:
        dims: Channels of the features at the cut, and of the embeddings.
        inputs: Those that it reads, of `r_in`, `r_out_prev`, `t_emb`, `text_emb`; the others may be None.

    Raises:
        UserError: An input is unknown, or neither `r_in` nor `r_out_prev` is among them. A class: it has no kind, or
            another class has that one.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, kind: str | None = None) -> None:
        super().__init_subclass__()
        name = f"{cls.__module__}.{cls.__qualname__}"
        if kind is None or not re.fullmatch(r"\w+", kind):
            raise UserError(f'{name} has no kind: write class {cls.__name__}(Adaptor, kind="{cls.__name__.lower()}")')
        other = KINDS.get(kind)
        if other is not None and f"{other.__module__}.{other.__qualname__}" != name:
            first = f"{other.__module__}.{other.__qualname__}"
            raise UserError(f"{name} has kind={kind!r}, and so has {first}: rename one")
        cls.kind = kind
        KINDS[kind] = cls

    def __init__(self, dims: FeatureDims, inputs: tuple[str, ...]) -> None:
        super().__init__()
        if unknown := set(inputs) - set(INPUTS):
            raise UserError(f"adaptor inputs {sorted(unknown)} are unknown: choose among {', '.join(INPUTS)}")
        if not {"r_in", "r_out_prev"} & set(inputs):
            raise UserError("an adaptor needs r_in or r_out_prev among its inputs")
        self.dims, self.inputs = dims, tuple(name for name in INPUTS if name in inputs)

    @abstractmethod
    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        """Features `batch × channels × height × width`, embeddings `batch × width`; gives `r_out`'s shape."""

    def config(self) -> dict[str, Any]:
        """The arguments that build it again."""
        return {"dims": asdict(self.dims), "inputs": list(self.inputs)}

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision of its weights; None without any."""
        first = next(self.parameters(), None)
        return None if first is None else first.dtype

    @property
    def feature_width(self) -> int:
        return sum(getattr(self.dims, name.removesuffix("_prev")) for name in self.inputs if name.startswith("r_"))

    def features(self, r_in: Tensor | None, r_out_prev: Tensor | None) -> Tensor:
        """concat(r_in, r_out_prev), of those that are inputs, at `r_out`'s resolution."""
        chosen = []
        if "r_in" in self.inputs:
            assert r_in is not None
            size = r_out_prev.shape[-2:] if r_out_prev is not None else [n * self.dims.upscale for n in r_in.shape[-2:]]
            chosen.append(r_in if r_in.shape[-2:] == torch.Size(size) else F.interpolate(r_in, size=tuple(size)))
        if "r_out_prev" in self.inputs:
            if r_out_prev is None:
                raise UserError(
                    "this adaptor reads r_out of the step before, and there is none: start with a full step"
                )
            chosen.append(r_out_prev)
        return torch.cat(chosen, dim=1)


class ResBlock(nn.Module):
    """Norm, SiLU, convolution, twice, with the time embedding added in between."""

    def __init__(self, width: int, out: int, time: int | None) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(_groups(width), width), nn.Conv2d(width, out, 3, padding=1)
        self.norm2, self.conv2 = nn.GroupNorm(_groups(out), out), nn.Conv2d(out, out, 3, padding=1)
        self.time = None if time is None else nn.Linear(time, out)
        self.skip = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor, time: Tensor | None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None and time is not None:
            h = h + self.time(F.silu(time))[:, :, None, None]
        return self.skip(x) + self.conv2(F.silu(self.norm2(h)))


def _groups(width: int) -> int:
    return next(n for n in (32, 16, 8, 4, 2, 1) if width % n == 0)


def resize_to(x: Tensor, size: torch.Size) -> Tensor:
    """Cut or pad to an odd size that strided layers rounded away."""
    return x if x.shape[-2:] == size else F.interpolate(x, size=tuple(size))
