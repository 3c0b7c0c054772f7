"""FLOPs of UNet passes, steps and images, counted on the `meta` device, which needs no weights and no memory."""

import copy
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from clockwork.adaptors import Adaptor, FullStep, History, run_adaptor
from clockwork.flops.counter import Flops, count_flops, counted
from clockwork.flops.measured import measured_flops
from clockwork.sampling.feature_shapes import meta_call
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.unet.split import SplitUNet

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class PartFlops:
    """FLOPs of a UNet's two parts at a cut, each counted once, and the features between them.

    Attributes:
        high_res: The layers outside the low-res path, and the embeddings: the part of the UNet that runs on every step.
        low_res: The low-res path, which an adaptor replaces.
        high_out: The kept up layers, a part of `high_res`.
        sample: Shape of the latents, `batch × channels × height × width`, or of those of videos.
        r_in: Shape of the features that enter the low-res path, `batch × channels × height × width`.
        r_out: Shape of the features that leave the low-res path, `batch × channels × height × width`; their channels
            and resolution may differ from those of `r_in`.
        t_emb: Shape of the time embedding, `batch × width`.
    """

    high_res: Flops
    low_res: Flops
    high_out: Flops
    sample: torch.Size
    r_in: torch.Size
    r_out: torch.Size
    t_emb: torch.Size

    @property
    def full_pass(self) -> Flops:
        """FLOPs of one forward pass of the whole UNet."""
        return self.high_res + self.low_res

    def adaptor_pass(self, adaptor: Adaptor) -> Flops:
        """Counts a forward pass in which an adaptor replaces the low-res path.

        Args:
            adaptor: The adaptor, on `meta`.

        Returns:
            FLOPs of the pass.
        """
        return self.high_res + self.adaptor(adaptor)

    def positive_step(self, adaptor: Adaptor) -> Flops:
        """Counts an adaptor step of guidance whose positive half alone runs, of which these are the parts.

        Args:
            adaptor: The adaptor, on `meta`, with a map that predicts the negative half.

        Returns:
            FLOPs of the pass and of that map.
        """
        negative_map = adaptor.negative_map
        assert negative_map is not None
        shape = self.sample[0], negative_map.bias.shape[1], *self.sample[2:]
        positive, previous = (torch.empty(times * shape[0], *shape[1:], device="meta") for times in (1, 2))
        return self.adaptor_pass(adaptor) + count_flops(lambda: negative_map(positive, previous, 1))

    def adaptor(self, adaptor: Adaptor) -> Flops:
        """Counts a forward pass of an adaptor alone.

        Args:
            adaptor: The adaptor, on `meta`.

        Returns:
            FLOPs of the adaptor.
        """
        width = adaptor.dims.text_emb
        with torch.device("meta"):
            r_in, r_out, t_emb = (torch.empty(shape) for shape in (self.r_in, self.r_out, self.t_emb))
            text_emb = torch.empty(len(r_in), width) if width else None
        num_full_steps = adaptor.num_full_steps
        full_steps = tuple(FullStep(step, r_in, r_out) for step in range(num_full_steps, 0, -1))  # the latest first
        history = History(r_out, r_in, full_steps)
        return count_flops(
            # With one map for all examples, the linear adaptor is a convolution, which every convention counts.
            lambda: run_adaptor(adaptor, r_in, t_emb, text_emb, None, num_full_steps + 1, history)
        )


def part_flops(split: SplitUNet, call: Mapping[str, Any]) -> PartFlops:
    """Counts the FLOPs of both parts of a UNet at its cut.

    Args:
        split: The UNet, on `meta`.
        call: Arguments of the UNet's `forward`, on `meta`.

    Returns:
        The counts, and the shapes of the features at the cut.
    """
    embedded, embedding = counted(lambda: split.embed(**call))
    high, down = counted(lambda: split.high_in(embedded))
    r_out, low_res = counted(lambda: split.low(high, embedded))
    up = count_flops(lambda: split.high_out(r_out, high, embedded))
    t_emb = torch.Size((len(high.r_in), embedded.t_emb.shape[1]))
    return PartFlops(embedding + down + up, low_res, up, call["sample"].shape, high.r_in.shape, r_out.shape, t_emb)


def rollout_flops(full: Flops, adaptor: Flops, schedule: Schedule, num_unet_calls: int, guided: bool) -> Flops:
    """Computes the FLOPs of the roll-out of one image.

    Args:
        full: FLOPs of a full pass at batch 1.
        adaptor: FLOPs of an adaptor pass at batch 1.
        schedule: Schedule of the full steps.
        num_unet_calls: Number of UNet calls of the roll-out, without guidance's second pass (PNDM has one more than
            steps).
        guided: Whether every step takes two passes, for classifier-free guidance.

    Returns:
        FLOPs of all passes. The text encoder and the decoder are not included.

    Raises:
        UserError: The schedule names steps after the last.
    """
    num_full_steps = schedule.full_steps(num_unet_calls)
    return (full * num_full_steps + adaptor * (num_unet_calls - num_full_steps)) * (2 if guided else 1)


_STEPS: dict[Hashable, PartFlops] = {}  # by UNet, cut and size


def step_flops(sampler: Sampler) -> tuple[Flops, Flops]:
    """Counts one full and one adaptor step at batch 1, without guidance's second pass.

    Args:
        sampler: The operating point.

    Returns:
        FLOPs of the full step and of the adaptor step; the latter are zero without an adaptor.
    """
    parts, adaptor = step_parts(sampler), sampler.adaptor
    return parts.full_pass, Flops() if adaptor is None else parts.adaptor_pass(on_meta(adaptor))


def step_parts(sampler: Sampler) -> PartFlops:
    """Counts the two parts of a sampler's UNet at batch 1.

    Each UNet is counted once per process, cut and size.

    Args:
        sampler: The operating point.

    Returns:
        The counts, and the shapes of the features at the cut.
    """
    unet, cut = sampler.split.unet, sampler.split.cut
    size = sampler.teacher.latent_shape, sampler.teacher.pipe.tokenizer.model_max_length
    key = _structure(unet), cut, size
    if key not in _STEPS:
        _STEPS[key] = part_flops(SplitUNet(on_meta(unet), cut), meta_call(unet, *size))
    return _STEPS[key]


def _structure(unet: UNet2DConditionModel) -> Hashable:
    """Returns what determines a UNet's FLOPs: its config, and the class and the weights' shapes of each module."""
    modules = tuple((name, type(module)) for name, module in unet.named_modules())
    weights = tuple((name, weight.shape) for name, weight in unet.named_parameters())
    return unet.to_json_string(), modules, weights


def image_flops(sampler: Sampler) -> Flops:
    """Counts the FLOPs of all UNet and adaptor passes of one image.

    Args:
        sampler: The operating point. With a rival, an image is generated and what runs is counted (`measured_flops`).

    Returns:
        The FLOPs.
    """
    if sampler.rival is not None:
        return measured_flops(sampler)
    (full, adaptor), guided = step_flops(sampler), sampler.teacher.unet_calls_per_step(sampler.guidance) == 2
    if guided and sampler.adaptor is not None and sampler.adaptor.negative_map is not None:
        full, adaptor = full * 2, step_parts(sampler).positive_step(on_meta(sampler.adaptor))
        guided = False  # both halves are counted
    return rollout_flops(full, adaptor, sampler.schedule, sampler.num_unet_calls, guided)


def has_packed_layers(module: nn.Module) -> bool:
    """Whether a module has layers whose weights cannot be put on `meta`, as torch's dynamically quantised ones.

    Args:
        module: The module.
    """
    return not all(isinstance(value, Tensor) for value in module.state_dict().values())


def on_meta(module: Module) -> Module:
    """Copies a module to the `meta` device, in single precision.

    LoRA layers, IP-Adapters and other modules that were added are copied, too. Hooks of accelerate and of diffusers
    are not.

    Args:
        module: The module, on any device.

    Returns:
        The copy, without data.
    """
    memo: dict[int, Any] = {}
    for part in module.modules():
        memo |= {id(p): nn.Parameter(shapes(p), requires_grad=False) for p in part.parameters(recurse=False)}
        memo |= {id(b): shapes(b) for b in part.buffers(recurse=False)}
        memo |= {id(vars(part)[name]): None for name in ("_hf_hook", "_diffusers_hook") if name in vars(part)}
    meta_copy = copy.deepcopy(module, memo)
    for part in meta_copy.modules():
        for name in ("forward", "_hf_hook", "_diffusers_hook"):  # the first is set by hooks
            vars(part).pop(name, None)
    return meta_copy


def shapes(values: Any) -> Any:
    """Replaces the tensors in nested containers by `meta` tensors of the same shape.

    Args:
        values: Tensors in lists, tuples and dictionaries; other values are kept.

    Returns:
        The same structure. Half precision becomes float32, for which every operation is defined; the FLOPs are the
        same.
    """
    return tree_map_only(Tensor, _shape, values)


def _shape(tensor: Tensor) -> Tensor:
    """Creates an empty tensor of the same shape on `meta`, in float32 if it holds floating-point numbers."""
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return torch.empty(tensor.shape, dtype=dtype, device="meta")
