"""What the paper's models cost at real size, from their architectures alone: no weights, nothing painted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from clockwork.adaptors import Adaptor, FeatureDims
from clockwork.flops.cost import PartFlops, part_flops, rollout_flops
from clockwork.flops.counter import Flops, count_by_module
from clockwork.sampling.sampler import dims_of_features, meta_call
from clockwork.sampling.solvers import num_unet_calls
from clockwork.schedule import Schedule
from clockwork.teachers.architectures import meta_unet
from clockwork.unet.split import SplitUNet

LATENT = (4, 64, 64)  # 512 × 512
TEXT_WIDTH = 1024  # OpenCLIP ViT-g/14's
ONE_PASS = ("distilled", "instaflow")  # without guidance's second pass
MakeAdaptor = Callable[[FeatureDims], Adaptor]


@dataclass(frozen=True)
class RealPoint:
    """What fixes the cost of an operating point at 512 × 512."""

    architecture: str
    adaptor: str = "none"
    schedule: str = "clock2"
    cut: str = "stage1"
    solver: str = "dpm++"
    steps: int = 8
    guided: bool = True


class RealSize:
    """Counts each architecture, cut and adaptor once. `adaptors` are built by name for a cut's feature dimensions."""

    def __init__(self, adaptors: Mapping[str, MakeAdaptor]) -> None:
        self.adaptors = adaptors
        self._unet = cache(meta_unet)
        self._parts = cache(self._count_parts)
        self._adaptor_pass = cache(self._count_adaptor_pass)

    def split(self, architecture: str, cut: str = "stage1") -> SplitUNet:
        return SplitUNet(self._unet(architecture), cut)

    def adaptor(self, name: str, architecture: str, cut: str = "stage1") -> Adaptor | None:
        """On `meta`, for that cut; None for `none`."""
        if name == "none":
            return None
        with torch.device("meta"):
            parts = self._parts(architecture, cut)
            return self.adaptors[name](dims_of_features(parts.r_in, parts.r_out, parts.t_emb, TEXT_WIDTH))

    def full_and_adaptor_flops(
        self, architecture: str, cut: str = "stage1", adaptor: str = "none"
    ) -> tuple[Flops, Flops]:
        """One full and one adaptor pass at batch 1."""
        return self._parts(architecture, cut).full_pass, self._adaptor_pass(architecture, cut, adaptor)

    def _count_parts(self, architecture: str, cut: str) -> PartFlops:
        split = self.split(architecture, cut)
        return part_flops(split, meta_call(split.unet, LATENT))

    def _count_adaptor_pass(self, architecture: str, cut: str, name: str) -> Flops:
        adaptor = self.adaptor(name, architecture, cut)
        return Flops() if adaptor is None else self._parts(architecture, cut).adaptor_pass(adaptor)

    def image(self, point: RealPoint) -> Flops:
        """All passes of one image."""
        passes = self.full_and_adaptor_flops(point.architecture, point.cut, point.adaptor)
        schedule = Schedule() if point.adaptor == "none" else Schedule.parse(point.schedule)
        guided = point.guided and point.architecture not in ONE_PASS
        return rollout_flops(*passes, schedule, num_unet_calls(point.solver, {}, point.steps), guided)

    def parameters(self, architecture: str) -> int:
        return _parameters(self._unet(architecture))

    def adaptor_parameters(self, point: RealPoint) -> int:
        return _parameters(self.adaptor(point.adaptor, point.architecture, point.cut))

    def blocks(self, architecture: str = "sd15") -> dict[str, tuple[Flops, int]]:
        """FLOPs of one pass and parameters of each block (Figure 8: DOWN-0 …, MID, UP-0 …), and in all."""
        unet = self._unet(architecture)
        call = meta_call(unet, LATENT)
        counts = count_by_module(lambda: unet(**call))
        name = type(unet).__name__
        found = {f"DOWN-{i}": (f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)}
        found |= {"MID": ("mid_block", unet.mid_block)}
        found |= {f"UP-{i}": (f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)}
        blocks = {label: (counts[f"{name}.{path}"], _parameters(block)) for label, (path, block) in found.items()}
        return {**blocks, "Total": (counts["Global"], _parameters(unet))}


def _parameters(module: torch.nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())
