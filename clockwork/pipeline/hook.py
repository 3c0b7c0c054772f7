"""The hook that stands in for a pipeline's UNet: the one place with state, over the denoisers of everything else."""

import copy
import inspect
import threading
import warnings
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.hooks import ModelHook
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor, nn

from clockwork.adaptors import Identity, away
from clockwork.errors import UserError
from clockwork.flops.cost import shapes
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.attach import NAME, refuse_hooks_on_blocks
from clockwork.pipeline.prompt_lookup import PromptHook
from clockwork.pipeline.step_tracking import UNKNOWN, Call, Place, Run, position
from clockwork.sampling.denoisers import Clocked, Denoised, Full
from clockwork.sampling.solvers import solver_name
from clockwork.teachers import Condition

FORWARD = inspect.signature(UNet2DConditionModel.forward)
NO_PROMPT = "the prompt behind the text features is not known"


@dataclass(frozen=True)
class Step:
    full: bool
    why: str | None  # what forced a full step
    call: dict[str, Any]  # the UNet's arguments, shapes only


@dataclass
class Log:
    """What the steps of one image did."""

    source: Any = None  # the timesteps, or the number that could not be placed in them
    steps: list[Step] = field(default_factory=list)
    ran: OperatingPoint | None = None
    differences: list[str] = field(default_factory=list)  # of what ran from the adaptor's operating point


class ClockHook(ModelHook):
    """Runs the UNet's calls through `Clocked`. Features wait for the next step in a `Run`, one a thread.

    `teacher`: name and hash of the UNet at hand; `trained`: the adaptor's operating point, None where it has none;
    `prompts`: where an adaptor that reads text gets it from.
    """

    def __init__(
        self,
        pipe: Any,
        clocked: Clocked,
        teacher: tuple[str, str],
        trained: OperatingPoint | None = None,
        prompts: PromptHook | None = None,
    ) -> None:
        super().__init__()
        self.pipe, self.clocked, self.teacher, self.trained, self.prompts = pipe, clocked, teacher, trained, prompts
        self.log, self._thread, self._warned = Log(), threading.local(), set[str]()

    def __deepcopy__(self, memo: dict[int, Any]) -> "ClockHook":
        """With its UNet, and its pipeline if that is copied too; the copy starts without features."""
        pipe = memo.get(id(self.pipe), self.pipe)
        clocked, prompts = copy.deepcopy(self.clocked, memo), copy.deepcopy(self.prompts, memo)
        return ClockHook(pipe, clocked, self.teacher, self.trained, prompts)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        # The forward that diffusers puts on a module survives a deep copy, but goes on naming the first UNet and its
        # hook. So the module that is called is handed on, and tells whose turn it is.
        return (module, *args), kwargs

    @torch.compiler.disable(reason="Clockwork: say pipe.unet.compile_repeated_blocks(), not a graph of the whole UNet")
    def new_forward(self, _: nn.Module, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hook = hook_of(module)
        assert hook is not None
        call = FORWARD.bind(module, *args, **kwargs).arguments
        del call["self"]
        as_object = call.pop("return_dict", True)
        output = hook.denoise(call)
        return UNet2DConditionOutput(sample=output) if as_object else (output,)

    def denoise(self, call: dict[str, Any]) -> Tensor:
        """`call`: the arguments of `UNet2DConditionModel.forward` by name."""
        here, run = self._here(call), getattr(self._thread, "run", None)
        if here is None:
            if (run is None or run.over) and not _same_source(call["timestep"], self.log.source):
                self.log = Log(call["timestep"])
            return self._step(call, Place(1, why=UNKNOWN)).output
        place, self._thread.run = Place.of(here, run), None  # a step that fails leaves nothing behind
        if place.first:
            self._begin(here)
        denoised = self._step(call, place)
        run = Run(here, place.step, denoised.r_out.detach(), place.in_order)
        self._thread.run = replace(run, r_out=None) if run.over else run
        return denoised.output

    def _here(self, call: dict[str, Any]) -> Call | None:
        timesteps: Any = getattr(self.pipe.scheduler, "timesteps", None)
        place, sample = position(call["timestep"], timesteps), call["sample"]
        if place is None:
            return None
        return Call(timesteps, place, call["encoder_hidden_states"], (sample.shape, sample.dtype, sample.device))

    def _begin(self, here: Call) -> None:
        """An image's first step: refuses a schedule that is too long, and says where the adaptor is not at home."""
        refuse_hooks_on_blocks(self.clocked.split.unet)
        calls = len(here.timesteps) - here.position
        self.clocked.schedule.adaptor_steps(calls)
        self.log = Log(here.timesteps, ran=self._point(here, calls))
        if self.trained is None or self.log.ran is None:
            return
        self.log.differences = self.log.ran.differences(self.trained)
        warning = away(self.log.differences)
        if self.log.differences and warning not in self._warned:
            self._warned.add(warning)
            warnings.warn(warning, stacklevel=2)

    def _point(self, here: Call, calls: int) -> OperatingPoint:
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

    def _step(self, call: dict[str, Any], place: Place) -> Denoised:
        arguments = dict(call)
        sample, t, tokens = (arguments.pop(name) for name in ("sample", "timestep", "encoder_hidden_states"))
        clocked, why, pooled = self.clocked, place.why, None
        full = why is not None or clocked.schedule.is_full(place.step)
        if not full and self.prompts is not None:
            pooled = self.prompts.pooled(tokens, sample)
            full, why = (True, NO_PROMPT) if pooled is None else (False, None)
        self.log.steps.append(Step(full, why, shapes({**call, "timestep": torch.empty(())})))
        denoiser = Full(clocked.split) if full else clocked
        if not full:
            clocked.adaptor.to(sample.device, sample.dtype)
        denoised = denoiser(sample, t, Condition(tokens, pooled, arguments), place.step, place.r_out_prev)
        self._check_widths(denoised)
        return denoised

    def _check_widths(self, denoised: Denoised) -> None:
        adaptor = self.clocked.adaptor
        wanted, found = (adaptor.widths.r_in, adaptor.widths.r_out), (denoised.r_in.shape[1], denoised.r_out.shape[1])
        if wanted != found and not isinstance(adaptor, Identity):
            raise UserError(
                f"this adaptor is for features of {wanted[0]} and {wanted[1]} channels, and cut "
                f"{self.clocked.split.cut} has {found[0]} and {found[1]}: choose the cut that it was trained for"
            )


def _same_source(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    return not isinstance(a, Tensor) and not isinstance(b, Tensor)


def hook_of(module: nn.Module) -> ClockHook | None:
    registry = getattr(module, "_diffusers_hook", None)
    found = None if registry is None else registry.get_hook(NAME)
    return found if isinstance(found, ClockHook) else None
