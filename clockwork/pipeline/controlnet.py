"""ControlNets of a pipeline with Clockwork: on an adaptor step only the layers run whose residuals the UNet reads.

A ControlNet runs before the UNet. Which step the UNet will run follows from the timestep and the image's earlier steps.
If the UNet has to run in full after all, because its prompt or batch changed, the ControlNets run again, whole.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
from diffusers import ControlNetModel
from torch import Tensor, nn

from clockwork.errors import UserError
from clockwork.pipeline.attach import HOOK_NAME, ForwardHook, attach, detach
from clockwork.pipeline.controlnet_call import ControlNetCall
from clockwork.pipeline.forced_full import reason_of_branches
from clockwork.pipeline.step_tracking import LoopState
from clockwork.pipeline.unet_call import find_position
from clockwork.unet.binding import Binder
from clockwork.unet.conditioning import HALVES
from clockwork.unet.controlnet import has_kept_part

if TYPE_CHECKING:
    from clockwork.pipeline.hook import ClockHook

bind = Binder(ControlNetModel.forward)


class ControlNetHook(ForwardHook):
    """Replaces a ControlNet's `forward`.

    Args:
        clock: The hook on the UNet.
    """

    def __init__(self, clock: "ClockHook") -> None:
        super().__init__()
        self.clock = clock

    def __deepcopy__(self, memo: dict[int, Any]) -> "ControlNetHook":
        """Copies the hook with its ControlNet; with the pipeline, the copy belongs to the copied UNet."""
        return ControlNetHook(memo.get(id(self.clock), self.clock))

    @torch.compiler.disable(reason="Clockwork: compile the ControlNet before clockwork.enable")
    def new_forward(self, _: nn.Module, net: ControlNetModel, *args: Any, **kwargs: Any) -> Any:
        """Replaces the ControlNet's `forward`, with its arguments and its return value."""
        clock = net._diffusers_hook.get_hook(HOOK_NAME).clock
        call = bind(args, kwargs)
        split = clock.denoiser.split
        partly = _expects_adaptor_step(clock, call["timestep"]) and has_kept_part(net, len(split.chain.down) + 1)
        controlnet_call = ControlNetCall(net, call, split.cut.num_kept_skips(split.chain) if partly else None)
        clock.thread.add_controlnet(controlnet_call)
        return controlnet_call.run()


def _expects_adaptor_step(clock: "ClockHook", t: Any) -> bool:
    """Whether the UNet's next call, with this timestep, is an adaptor step unless the prompt or the batch changes."""
    timesteps: Any = getattr(clock.pipe.scheduler, "timesteps", None)
    position = find_position(t, timesteps)
    state = None if position is None else LoopState.at(timesteps, position - 1, clock.thread.states)
    if position is None or state is None or state.log.forced_full_reason is not None or clock.runs_teacher:
        return False
    branches = clock.branches(t, 1, True) if state.log.halves_apart else HALVES[1:]
    if reason_of_branches(clock.denoiser.adaptor, branches, state.log.halves_apart) is not None:
        return False
    knows_text = clock.prompts is None or (state.text is not None and state.text.text_emb is not None)
    return knows_text and not clock.denoiser.schedule.is_full(position - state.first_position + 1)


def attach_controlnet_hooks(pipe: Any, clock: "ClockHook") -> None:
    """Attaches a hook to each ControlNet of a pipeline whose kept part can run alone.

    Args:
        pipe: A diffusers pipeline.
        clock: The hook on its UNet.
    """
    for net in _controlnets(pipe):
        if has_kept_part(net, len(clock.denoiser.split.chain.down) + 1):
            attach(net, ControlNetHook(clock))


def detach_controlnet_hooks(pipe: Any) -> None:
    """Removes the hooks of `attach_controlnet_hooks`.

    Args:
        pipe: A diffusers pipeline.
    """
    for net in _controlnets(pipe):
        detach(net)


def _controlnets(pipe: Any) -> list[Any]:
    """Returns the modules of a pipeline's ControlNets."""
    controlnet = getattr(pipe, "controlnet", None)
    nets = getattr(controlnet, "nets", [controlnet])
    return [net for net in nets if isinstance(net, nn.Module)]


def with_whole_residuals(call: Mapping[str, Any], controlnets: Sequence[ControlNetCall]) -> dict[str, Any]:
    """Computes the residuals that a full step reads, if ControlNets ran in part before it.

    Args:
        call: Arguments of the UNet's `forward` by name.
        controlnets: The calls of the ControlNets before it.

    Returns:
        The arguments with all residuals.

    Raises:
        UserError: If the residuals are not those of the ControlNets, added up.
    """
    results = [replace(c, call={**c.call, "return_dict": False}, kept=None).run() for c in controlnets]
    # As pipelines do: those of several ControlNets are added; guess mode has none for the unconditional half.
    down = [reduce(torch.add, of_each) for of_each in zip(*(down for down, _ in results), strict=True)]
    residuals = [*down, reduce(torch.add, [mid for _, mid in results])]
    if len(call["sample"]) == 2 * len(residuals[0]):
        residuals = [torch.cat([torch.zeros_like(residual), residual]) for residual in residuals]
    given: Sequence[Tensor] = call["down_block_additional_residuals"]
    kept = min(c.kept for c in controlnets if c.kept is not None)
    if not all(map(torch.equal, residuals[:kept], given[:kept])):
        raise UserError(
            "the prompt or the batch changed in the middle of an image, and other code changes the residuals of its "
            "ControlNets: keep both the same on all steps of an image"
        )
    *down, middle = residuals
    return {**call, "down_block_additional_residuals": tuple(down), "mid_block_additional_residual": middle}
