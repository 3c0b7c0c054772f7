"""The hook that replaces a pipeline's UNet call. It is the only place with state; denoisers have none."""

import copy
import warnings
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from clockwork.adaptors import check_dims, mismatch_message
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.adaptor_copy import copy_to
from clockwork.pipeline.attach import HOOK_NAME, ForwardHook
from clockwork.pipeline.compiling import WholeUNet
from clockwork.pipeline.controlnet import with_whole_residuals
from clockwork.pipeline.forced_full import reason_for_full_steps, reason_of_branches
from clockwork.pipeline.guidance import branch_indices, branches_of_call
from clockwork.pipeline.image_settings import operating_point
from clockwork.pipeline.prompt_lookup import PromptHook
from clockwork.pipeline.step_log import StepLog
from clockwork.pipeline.step_tracking import (
    UNKNOWN_POSITION,
    LoopState,
    StepLocation,
    TextEmbedding,
    next_states,
)
from clockwork.pipeline.thread_state import ThreadState
from clockwork.pipeline.unet_call import UNetCall, condition_of, find_position
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised
from clockwork.teachers import Condition

UNKNOWN_PROMPT = "the prompt behind the text features is not known"


class ClockHook(ForwardHook):
    """Replaces a UNet's `forward`: runs each call with the full UNet or with the adaptor.

    Which one, and the features that the adaptor receives, follow from the thread's previous calls
    (`clockwork.pipeline.step_tracking`).

    Args:
        pipe: The pipeline, whose solver determines the index of a step.
        denoiser: UNet, adaptor and schedule. The hook owns the adaptor and never changes it: if the UNet computes on
            another device or in another precision, a copy runs.
        teacher: Name and weights' fingerprint of the UNet.
        trained: The operating point that the adaptor was trained for; None for an adaptor without one.
        prompts: Looks up the text of adaptors that read it; None for others.

    Attributes:
        whole_unet: What is set aside while the hook is attached; None before.
        thread: What the calling thread's earlier calls left.
        runs_teacher: Whether adaptor steps run the full UNet, too.
    """

    runs_teacher = False

    def __init__(
        self,
        pipe: Any,
        denoiser: ClockworkDenoiser,
        teacher: tuple[str, str],
        trained: OperatingPoint | None = None,
        prompts: PromptHook | None = None,
    ) -> None:
        super().__init__()
        self.pipe, self.teacher, self.trained, self.prompts = pipe, teacher, trained, prompts
        self._original = denoiser
        self.whole_unet: WholeUNet | None = None
        # The last copy with its device and dtype. One attribute: other threads see both or neither.
        self._last_copy: tuple[Any, ClockworkDenoiser] = (None, denoiser)
        self._last_branch: tuple[Any, Tensor | None] = (None, None)  # likewise one attribute
        self.thread, self._last_log, self._issued_warnings = ThreadState(), StepLog(), set[str]()

    @property
    def denoiser(self) -> ClockworkDenoiser:
        """The denoiser, with the copy of the adaptor that ran last."""
        return self._last_copy[1]

    @property
    def log(self) -> StepLog:
        """Log of the image of this thread's last step; if this thread ran none, of the last step in any thread."""
        return self.thread.log or self._last_log

    def __deepcopy__(self, memo: dict[int, Any]) -> "ClockHook":
        """Copies the hook with its UNet, and with its pipeline if that is being copied; the copy has no state."""
        pipe = memo.get(id(self.pipe), self.pipe)
        denoiser, prompts = copy.deepcopy(self._original, memo), copy.deepcopy(self.prompts, memo)
        return ClockHook(pipe, denoiser, self.teacher, self.trained, prompts)

    @torch.compiler.disable(reason="Clockwork: compile the UNet before clockwork.enable, or pass compile=True to it")
    def new_forward(self, _: nn.Module, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Replaces the UNet's `forward`, with its arguments and its return value."""
        hook = get_hook(module)
        assert hook is not None
        split = hook.denoiser.split
        call = split.bind(args, kwargs)
        return_dict = call.pop("return_dict", True)
        output = hook.denoise(call)
        return split.kind.output(sample=output) if return_dict else (output,)

    def denoise(self, call: dict[str, Any]) -> Tensor:
        """Runs one step.

        Args:
            call: Arguments of the UNet's `forward` by name.

        Returns:
            The UNet's prediction, of the shape that its class gives it.
        """
        unet_call, thread = self._unet_call(call), self.thread
        if unet_call is None:
            thread.unknown_log = StepLog.for_unknown_position(call["timestep"], thread.unknown_log)
            location = StepLocation(0, 1, forced_full_reason=UNKNOWN_POSITION)
            return self._step(call, location, thread.unknown_log)[0].output
        previous = LoopState.before(unet_call, thread.states)
        location = StepLocation.locate(unet_call, previous)
        log = location.log_of_other_half(unet_call, thread.states)
        if log is None:
            log = self._start_log(unet_call, call) if location.is_first_step or previous is None else previous.log
        else:
            log.halves_apart = True
        denoised, text = self._step(call, location, log)
        thread.states = next_states(
            thread.states, previous, location.next_state(unet_call, denoised.history, text, log)
        )
        return denoised.output

    def _unet_call(self, call: dict[str, Any]) -> UNetCall | None:
        """Describes a call for step tracking; None if its position in the solver's timesteps is unknown."""
        timesteps: Any = getattr(self.pipe.scheduler, "timesteps", None)
        position, sample = find_position(call["timestep"], timesteps), call["sample"]
        if position is None:
            return None
        sample_spec = sample.shape, sample.dtype, sample.device
        return UNetCall(timesteps, position, condition_of(call), sample_spec, self.thread.branches)

    def _start_log(self, first_call: UNetCall, call: dict[str, Any]) -> StepLog:
        """Starts an image's log. Warns if the image is not generated at the adaptor's operating point."""
        self._check_branches(self.branches(call["timestep"], len(call["sample"]), apart=False))
        split = self.denoiser.split
        split.chain.refuse_exchanged_layers(split.unet)
        self.denoiser.schedule.adaptor_steps(first_call.num_left)  # refuses a schedule that is too long
        point = operating_point(self.pipe, self.teacher, self.denoiser, first_call)
        differences = [] if self.trained is None else point.differences(self.trained)
        warning = mismatch_message(differences)
        if differences and warning not in self._issued_warnings:
            self._issued_warnings.add(warning)
            warnings.warn(warning, stacklevel=2)
        return StepLog(point, differences, forced_full_reason=reason_for_full_steps(self.denoiser))

    def _check_branches(self, branches: tuple[str, ...] | None) -> None:
        """Refuses an adaptor that was calibrated with other branches of guidance than an image's first call has."""
        reason = branches and reason_of_branches(self.denoiser.adaptor, branches, apart=False)
        if reason:
            raise UserError(f"{reason}: calibrate for this call, or use clockwork.enable without an adaptor")

    def _step(
        self, call: dict[str, Any], location: StepLocation, log: StepLog
    ) -> tuple[Denoised, TextEmbedding | None]:
        """Runs and logs a step. Returns its result, and the text embedding for the image's later steps."""
        arguments, controlnets = dict(call), self.thread.take_controlnets()
        sample, t = arguments.pop("sample"), arguments.pop("timestep")
        prompt_embeds = arguments.pop("encoder_hidden_states", None)
        denoiser, reason, text = self.denoiser_for(sample), location.forced_full_reason, location.text
        scheduled_full = reason != UNKNOWN_POSITION and denoiser.schedule.is_full(location.step)
        if not scheduled_full:
            reason = log.forced_full_reason or reason
        branches = self.branches(t, len(sample), log.halves_apart)
        if not scheduled_full:
            reason = reason or reason_of_branches(denoiser.adaptor, branches, log.halves_apart)
        if self.prompts is not None and not scheduled_full and reason is None:
            text = text or TextEmbedding(self.prompts.text_emb(prompt_embeds))
            reason = UNKNOWN_PROMPT if text.text_emb is None else None
        full = scheduled_full or reason is not None
        if full and any(c.kept is not None for c in controlnets):
            call = with_whole_residuals(call, controlnets)
            arguments |= {name: call[name] for name in arguments}
            controlnets = tuple(replace(c, kept=None) for c in controlnets)
        text_emb = None if full or text is None else text.text_emb
        condition = Condition(prompt_embeds, text_emb, arguments, self._branch(sample, branches))
        step_denoiser = denoiser if reason is None else denoiser.full
        denoised = step_denoiser(sample, t, condition, location.step, location.history)
        if not log.steps:
            self._check_channels(denoised)
        guided = condition.branch is not None
        log.add(full, None if scheduled_full else reason, call, controlnets, guided)
        self.thread.log = self._last_log = log
        return denoised, text

    def branches(self, t: Any, batch: int, apart: bool) -> tuple[str, ...] | None:
        """Names the branches of guidance that the thread's next call has; arguments are those of `branches_of_call`."""
        if "branch" not in self.denoiser.adaptor.inputs:
            return None
        return self.thread.branches or branches_of_call(self.pipe, t, batch, apart)

    def _branch(self, sample: Tensor, branches: tuple[str, ...] | None) -> Tensor | None:
        """Returns `branch_indices`, made once for all steps; for backward passes not in inference mode."""
        key = branches, len(sample), sample.device, torch.is_inference_mode_enabled()
        last_key, branch = self._last_branch
        if last_key != key:
            branch = branch_indices(self.denoiser.adaptor, branches, len(sample), sample.device)
            self._last_branch = key, branch
        return branch

    def denoiser_for(self, sample: Tensor) -> ClockworkDenoiser:
        """Returns the denoiser with its adaptor on the sample's device and in its precision, which are the UNet's."""
        placement = sample.device, sample.dtype
        last_placement, denoiser = self._last_copy
        if last_placement != placement:
            denoiser = replace(self._original, adaptor=copy_to(self._original.adaptor, *placement))
            self._last_copy = placement, denoiser
        return denoiser

    def _check_channels(self, denoised: Denoised) -> None:
        """Refuses an adaptor for features with other numbers of channels, which `enable` cannot see of every UNet."""
        adaptor = self.denoiser.adaptor
        expected = adaptor.dims.r_in, adaptor.dims.r_out
        actual = denoised.r_in.shape[1], denoised.r_out.shape[1]
        if expected != actual:
            dims = replace(adaptor.dims, r_in=actual[0], r_out=actual[1])
            check_dims(adaptor, dims, str(self.denoiser.split.cut))


def get_hook(module: nn.Module) -> ClockHook | None:
    """Returns Clockwork's hook on a module; None if it has none.

    Args:
        module: A UNet.
    """
    registry = getattr(module, "_diffusers_hook", None)
    hook = None if registry is None else registry.get_hook(HOOK_NAME)
    return hook if isinstance(hook, ClockHook) else None
