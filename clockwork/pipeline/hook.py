"""The hook that stands in for a pipeline's UNet: the one place with state, over the denoisers of everything else."""

import copy
import inspect
import threading
import warnings
from dataclasses import replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.hooks import ModelHook
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from clockwork.adaptors import Identity, mismatch_message
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.adaptor_copy import copy_to
from clockwork.pipeline.attach import NAME, refuse_hooks_on_blocks
from clockwork.pipeline.prompt_lookup import PromptHook
from clockwork.pipeline.step_log import StepLog
from clockwork.pipeline.step_tracking import UNKNOWN, LoopState, StepLocation, TextEmbedding, UNetCall, position
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised, FullDenoiser
from clockwork.sampling.solvers import solver_name
from clockwork.teachers import Condition

FORWARD = inspect.signature(UNet2DConditionModel.forward)
NO_PROMPT = "the prompt behind the text features is not known"


class _ThreadState(threading.local):
    """What a thread's UNet calls left."""

    loop: LoopState | None = None
    log: StepLog | None = None  # of the last step
    unknown: StepLog | None = None  # of the last step without a known place


class ClockHook(ModelHook):
    """Runs the UNet's calls through the denoisers, with the features of the step before from the thread's `LoopState`.

    Args:
        pipe: The pipeline, for its solver.
        clocked: UNet, adaptor and schedule. The adaptor belongs to the hook and is never changed: where the UNet
            computes on another device or in another precision, a copy runs.
        teacher: Name and hash of the UNet at hand.
        trained: The adaptor's operating point, None where it has none.
        prompts: Where an adaptor that reads text gets it from.
    """

    def __init__(
        self,
        pipe: Any,
        clocked: ClockworkDenoiser,
        teacher: tuple[str, str],
        trained: OperatingPoint | None = None,
        prompts: PromptHook | None = None,
    ) -> None:
        super().__init__()
        self.pipe, self.teacher, self.trained, self.prompts = pipe, teacher, trained, prompts
        self._as_given = clocked
        self._placed: tuple[Any, ClockworkDenoiser] = (
            None,
            clocked,
        )  # one attribute: other threads see both or neither
        self._thread, self._last_log, self._warned = _ThreadState(), StepLog(), set[str]()

    @property
    def clocked(self) -> ClockworkDenoiser:
        """With the adaptor where it ran last."""
        return self._placed[1]

    @property
    def log(self) -> StepLog:
        """Of the image that had this thread's last step; in a thread without any, of the last step in all threads."""
        return self._thread.log or self._last_log

    def __deepcopy__(self, memo: dict[int, Any]) -> "ClockHook":
        """With its UNet, and its pipeline if that is copied too; the copy starts without features."""
        pipe = memo.get(id(self.pipe), self.pipe)
        clocked, prompts = copy.deepcopy(self._as_given, memo), copy.deepcopy(self.prompts, memo)
        return ClockHook(pipe, clocked, self.teacher, self.trained, prompts)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # The forward that diffusers puts on a module survives a deep copy, but still names the first UNet and its
        # hook. So the module that is called is passed on, and its own hook is looked up.
        return (module, *args), kwargs

    @torch.compiler.disable(reason="Clockwork: use pipe.unet.compile_repeated_blocks(), not a graph of the whole UNet")
    def new_forward(self, _: nn.Module, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hook = get_hook(module)
        assert hook is not None
        call = FORWARD.bind(module, *args, **kwargs).arguments
        del call["self"]
        as_object = call.pop("return_dict", True)
        output = hook.denoise(call)
        return UNet2DConditionOutput(sample=output) if as_object else (output,)

    def denoise(self, call: dict[str, Any]) -> Tensor:
        """The UNet's output. `call`: the arguments of `UNet2DConditionModel.forward` by name."""
        here, thread = self._locate(call), self._thread
        if here is None:
            thread.unknown = StepLog.of_unknown(call["timestep"], thread.unknown)
            location = StepLocation(0, 1, forced_full_reason=UNKNOWN)
            return self._step(call, location, thread.unknown)[0].output
        location = StepLocation.of(here, thread.loop)
        log = self._begin(here) if location.begins or thread.loop is None else thread.loop.log
        denoised, text = self._step(call, location, log)
        thread.loop = location.after(here, denoised.r_out, text, log)
        return denoised.output

    def _locate(self, call: dict[str, Any]) -> UNetCall | None:
        timesteps: Any = getattr(self.pipe.scheduler, "timesteps", None)
        place, sample = position(call["timestep"], timesteps), call["sample"]
        if place is None:
            return None
        return UNetCall(timesteps, place, call["encoder_hidden_states"], (sample.shape, sample.dtype, sample.device))

    def _begin(self, here: UNetCall) -> StepLog:
        """An image's first step: refuses a schedule that is too long, and warns where the adaptor is not at home."""
        refuse_hooks_on_blocks(self.clocked.split.unet)
        calls = len(here.timesteps) - here.position
        self.clocked.schedule.adaptor_steps(calls)
        ran = self._point(here, calls)
        differences = [] if self.trained is None else ran.differences(self.trained)
        warning = mismatch_message(differences)
        if differences and warning not in self._warned:
            self._warned.add(warning)
            warnings.warn(warning, stacklevel=2)
        return StepLog(ran, differences)

    def _point(self, here: UNetCall, calls: int) -> OperatingPoint:
        solver, shape = self.pipe.scheduler, here.form[0]
        whole = here.position == 0  # else an image is changed (strength), and fewer steps run than the solver has
        return OperatingPoint(
            *self.teacher,
            cut=str(self.clocked.split.cut),
            schedule=str(self.clocked.schedule),
            solver=solver_name(solver),
            steps=getattr(solver, "num_inference_steps", None) or calls if whole else calls,
            guidance=float(getattr(self.pipe, "guidance_scale", 1.0)),
            resolution=max(shape[-2:]) * getattr(self.pipe, "vae_scale_factor", 1),
        )

    def _step(
        self, call: dict[str, Any], location: StepLocation, log: StepLog
    ) -> tuple[Denoised, TextEmbedding | None]:
        """Runs and logs a step; returns with it the text that the image's later steps can use."""
        arguments = dict(call)
        sample, t, tokens = (arguments.pop(name) for name in ("sample", "timestep", "encoder_hidden_states"))
        clocked, reason, text = self._at(sample), location.forced_full_reason, location.text
        planned_full = reason != UNKNOWN and clocked.schedule.is_full(location.step)
        if self.prompts is not None and not planned_full and reason is None:
            text = text or TextEmbedding(self.prompts.text_emb(tokens))
            reason = NO_PROMPT if text.text_emb is None else None
        full = planned_full or reason is not None
        condition = Condition(tokens, None if full or text is None else text.text_emb, arguments)
        denoiser = FullDenoiser(clocked.split) if full else clocked
        denoised = denoiser(sample, t, condition, location.step, location.r_out_prev)
        self._check_channels(denoised)
        log.add(full, None if planned_full else reason, call)
        self._thread.log = self._last_log = log
        return denoised, text

    def _at(self, sample: Tensor) -> ClockworkDenoiser:
        """With the adaptor on the sample's device and in its precision: the UNet's, wherever that was moved."""
        where = sample.device, sample.dtype
        known, clocked = self._placed
        if known != where:
            clocked = replace(self._as_given, adaptor=copy_to(self._as_given.adaptor, *where))
            self._placed = where, clocked
        return clocked

    def _check_channels(self, denoised: Denoised) -> None:
        adaptor = self.clocked.adaptor
        wanted, found = (adaptor.dims.r_in, adaptor.dims.r_out), (denoised.r_in.shape[1], denoised.r_out.shape[1])
        if wanted != found and not isinstance(adaptor, Identity):
            raise UserError(
                f"this adaptor is for features of {wanted[0]} and {wanted[1]} channels, and cut "
                f"{self.clocked.split.cut} has {found[0]} and {found[1]}: choose the cut that it was trained for"
            )


def get_hook(module: nn.Module) -> ClockHook | None:
    registry = getattr(module, "_diffusers_hook", None)
    found = None if registry is None else registry.get_hook(NAME)
    return found if isinstance(found, ClockHook) else None
