"""FLOPs and parameters of the paper's models, counted from their architectures without weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch

from clockwork.adaptors import Adaptor, FeatureDims
from clockwork.flops.cost import PartFlops, part_flops, rollout_flops
from clockwork.flops.counter import Flops, count_by_module
from clockwork.sampling.feature_shapes import dims_of_features, meta_call
from clockwork.sampling.solvers import num_unet_calls
from clockwork.schedule import Schedule
from clockwork.teachers.architectures import meta_unet
from clockwork.unet.split import SplitUNet

LATENT = (4, 64, 64)  # 512 × 512
TEXT_WIDTH = 1024  # of OpenCLIP ViT-g/14
UNGUIDED = ("distilled", "instaflow")  # one pass per step, without classifier-free guidance
MakeAdaptor = Callable[[FeatureDims], Adaptor]


@dataclass(frozen=True)
class PaperModelPoint:
    """The settings that determine the FLOPs of an image of 512 × 512.

    Attributes:
        architecture: Name of the UNet's architecture (`clockwork.teachers.architectures`).
        adaptor: Name of the adaptor, or `none`.
        schedule: The schedule; ignored without an adaptor.
        cut: The cut.
        solver: The solver.
        steps: Number of sampling steps.
        guided: Whether every step takes two passes, for classifier-free guidance.
    """

    architecture: str
    adaptor: str = "none"
    schedule: str = "clock2"
    cut: str = "stage1"
    solver: str = "dpm++"
    steps: int = 8
    guided: bool = True


class PaperModels:
    """Counts FLOPs and parameters at 512 × 512; each architecture, cut and adaptor is counted once and cached.

    Args:
        adaptors: Functions that build an adaptor for the feature dimensions of a cut, by the adaptor's name.
    """

    def __init__(self, adaptors: Mapping[str, MakeAdaptor]) -> None:
        self.adaptors = adaptors
        self._unet = cache(meta_unet)
        self._parts = cache(self._count_parts)
        self._adaptor_pass = cache(self._count_adaptor_pass)

    def split(self, architecture: str, cut: str = "stage1") -> SplitUNet:
        """Builds a UNet on `meta`, split at a cut.

        Args:
            architecture: Name of the architecture.
            cut: The cut.

        Returns:
            The UNet.
        """
        return SplitUNet(self._unet(architecture), cut)

    def adaptor(self, name: str, architecture: str, cut: str = "stage1") -> Adaptor | None:
        """Builds an adaptor on `meta`.

        Args:
            name: Name of the adaptor, or `none`.
            architecture: Name of the UNet's architecture.
            cut: The cut.

        Returns:
            The adaptor, or None for `none`.
        """
        if name == "none":
            return None
        with torch.device("meta"):
            parts = self._parts(architecture, cut)
            return self.adaptors[name](dims_of_features(parts.r_in, parts.r_out, parts.t_emb, TEXT_WIDTH))

    def full_and_adaptor_flops(
        self, architecture: str, cut: str = "stage1", adaptor: str = "none"
    ) -> tuple[Flops, Flops]:
        """Counts one full and one adaptor pass at batch 1.

        Args:
            architecture: Name of the UNet's architecture.
            cut: The cut.
            adaptor: Name of the adaptor; for `none`, the adaptor pass has no FLOPs.

        Returns:
            FLOPs of the full pass and of the adaptor pass.
        """
        return self._parts(architecture, cut).full_pass, self._adaptor_pass(architecture, cut, adaptor)

    def _count_parts(self, architecture: str, cut: str) -> PartFlops:
        """Counts both parts of a UNet; `_parts` caches the result."""
        split = self.split(architecture, cut)
        return part_flops(split, meta_call(split.unet, LATENT))

    def _count_adaptor_pass(self, architecture: str, cut: str, name: str) -> Flops:
        """Counts a pass with an adaptor; `_adaptor_pass` caches the result."""
        adaptor = self.adaptor(name, architecture, cut)
        return Flops() if adaptor is None else self._parts(architecture, cut).adaptor_pass(adaptor)

    def image(self, point: PaperModelPoint) -> Flops:
        """Counts all UNet and adaptor passes of one image.

        Args:
            point: The operating point.

        Returns:
            The FLOPs.
        """
        flops_of_passes = self.full_and_adaptor_flops(point.architecture, point.cut, point.adaptor)
        schedule = Schedule() if point.adaptor == "none" else Schedule.parse(point.schedule)
        guided = point.guided and point.architecture not in UNGUIDED
        return rollout_flops(*flops_of_passes, schedule, num_unet_calls(point.solver, {}, point.steps), guided)

    def parameters(self, architecture: str) -> int:
        """Counts the parameters of a UNet.

        Args:
            architecture: Name of the architecture.

        Returns:
            The number of parameters.
        """
        return _parameters(self._unet(architecture))

    def adaptor_parameters(self, point: PaperModelPoint) -> int:
        """Counts the parameters of the adaptor at an operating point.

        Args:
            point: The operating point.

        Returns:
            The number of parameters, 0 without an adaptor.
        """
        return _parameters(self.adaptor(point.adaptor, point.architecture, point.cut))

    def blocks(self, architecture: str = "sd15") -> dict[str, tuple[Flops, int]]:
        """Counts the FLOPs of one pass and the parameters of each block of a UNet (Figure 8).

        Args:
            architecture: Name of the architecture.

        Returns:
            FLOPs and number of parameters by block (`DOWN-0`, …, `MID`, `UP-0`, …), and of the whole UNet (`Total`).
        """
        unet = self._unet(architecture)
        call = meta_call(unet, LATENT)
        counts = count_by_module(lambda: unet(**call))
        name = type(unet).__name__
        modules = {f"DOWN-{i}": (f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)}
        modules |= {"MID": ("mid_block", unet.mid_block)}
        modules |= {f"UP-{i}": (f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)}
        blocks = {label: (counts[f"{name}.{path}"], _parameters(block)) for label, (path, block) in modules.items()}
        return {**blocks, "Total": (counts["Global"], _parameters(unet))}


def _parameters(module: torch.nn.Module | None) -> int:
    """Counts the parameters of a module."""
    return 0 if module is None else sum(p.numel() for p in module.parameters())
