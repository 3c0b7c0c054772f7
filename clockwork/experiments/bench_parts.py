"""What `scripts/bench.py` times: steps and roll-outs of one teacher, each with what it is compared with."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from clockwork.adaptors import NO_HISTORY, Adaptor, Hermite, Identity, Linear, ResNet, Taylor
from clockwork.adaptors.base import INPUTS
from clockwork.experiments.bench_export import exported_runner, latents_of_runner
from clockwork.experiments.bench_hook import STEPS, hook_image
from clockwork.experiments.build import make_rival, make_sampler
from clockwork.flops.cost import image_flops, step_flops
from clockwork.sampling.compiled import step_functions
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoiser, FullDenoiser, arguments
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.guidance import is_conditional
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.steps import EAGER, AdaptorInputs, StepFunctions
from clockwork.teachers import Teacher

CAPTION = "a large red circle on a plain blue background"
# Bars on a CPU (docs/speed.md): shares of the FLOPs ratio, a ratio, and milliseconds per step.
ADAPTOR_STEP_BAR, ROLLOUT_BAR, COMPILED_BAR, HOOK_BAR_MS = 1.02, 1.03, 0.9, 0.06


@dataclass(frozen=True)
class Case:
    """Something that is timed.

    Attributes:
        call: What is timed.
        to: Name of the case that it is compared with.
        flops_ratio: Its FLOPs divided by those of that case.
        bar: Upper bound; see `Timing`.
        count: How many steps a call runs, if durations are per step.
    """

    call: Callable[[], Any]
    to: str | None = None
    flops_ratio: float | None = None
    bar: float | None = None
    count: int = 1


class Parts:
    """What is timed: steps and roll-outs of one teacher, without and with Clockwork, eager and compiled.

    Args:
        cfg: The composed config of the command `bench`.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.cfg, self.teacher = cfg, instantiate(cfg.teacher)
        if cfg.channels is not None:
            self.teacher.pipe.unet = _random_unet(self.teacher, tuple(cfg.channels))
        self.full = make_sampler(cfg, self.teacher)
        dims = feature_dims(self.teacher, str(cfg.cut))
        self.identity = make_sampler(cfg, self.teacher, Identity(dims), "identity")
        maps = Linear(dims, self.identity.schedule.adaptor_steps(self.identity.num_unet_calls))
        self.linear = self._with(maps, "linear")
        self.captions = [CAPTION] * cfg.batch
        self.noise = self.teacher.noise(list(range(cfg.batch)))
        self.clock = str(self.identity.schedule)
        self.functions = {
            _compiled_name(options): step_functions(options, self.teacher.device)
            for options in cast(list[dict[str, Any]], OmegaConf.to_container(cfg.compile))
        }
        calls = self.teacher.unet_calls_per_step(cfg.guidance)  # steps are timed with both halves of guidance
        sample, t = self.noise.repeat(calls, 1, 1, 1), torch.tensor(500, device=self.teacher.device)
        condition = self.teacher.encode(self.captions * calls, with_text_emb=False)
        self.arguments = arguments(self.full.split, sample, t, condition)
        self.branch = is_conditional(len(sample), cfg.batch).to(sample.device) if calls == 2 else None
        self.features = EAGER.full(self.full.split, self.arguments)

    def _with(self, adaptor: Adaptor, name: str) -> Sampler:
        """Creates the sampler of an adaptor, placed as the UNet."""
        placed = adaptor.to(self.teacher.device, self.teacher.unet.dtype).requires_grad_(False)
        return make_sampler(self.cfg, self.teacher, placed, name)

    def steps(self) -> dict[str, Case]:
        """The UNet, and full and adaptor steps."""
        call, unet = self.arguments, self.teacher.unet
        cases = {
            "the UNet": Case(lambda: unet(**call, return_dict=False)),
            "a full step": Case(lambda: EAGER.full(self.full.split, call), "the UNet", 1.0),
        }
        for sampler in (self.identity, self.linear):
            full, adaptor = step_flops(sampler)
            ratio = adaptor.full / full.full
            bar = ratio * ADAPTOR_STEP_BAR
            run = self._adaptor_step(sampler, EAGER)
            cases[f"an adaptor step, {sampler.adaptor_name}"] = Case(run, "a full step", ratio, bar)
        return cases

    def _adaptor_step(self, sampler: Sampler, functions: StepFunctions) -> Callable[[], Any]:
        """Returns an adaptor step after a full one."""
        adaptor = sampler.adaptor
        assert adaptor is not None
        features = self.features
        history = NO_HISTORY.after(adaptor, 1, features.r_in, features.r_out, features.output, full=True)
        inputs = AdaptorInputs(None, self.branch, 2, history)
        return lambda: functions.adaptor(sampler.split, adaptor, self.arguments, inputs)

    def rollouts(self) -> dict[str, Case]:
        """diffusers' pipeline, and the roll-outs without and with Clockwork."""
        cfg = self.cfg
        noise = self.noise.to(self.teacher.unet.dtype)  # diffusers does not cast latents that it receives
        call = {"latents": noise, "num_inference_steps": cfg.steps, "guidance_scale": cfg.guidance}
        pipeline = Case(lambda: self.teacher.pipe(self.captions, **call, output_type="latent"))
        cases = {
            "diffusers' pipeline": pipeline,
            "the roll-out": Case(self._rollout(self.full), "diffusers' pipeline"),
        }
        for sampler in (self.identity, self.linear):
            ratio = self._flops_ratio(sampler)
            cases[self._name(sampler)] = Case(self._rollout(sampler), "the roll-out", ratio, ratio * ROLLOUT_BAR)
        return cases

    def _flops_ratio(self, sampler: Sampler) -> float:
        """Returns the FLOPs of a roll-out divided by those of the full one."""
        return image_flops(sampler).full / image_flops(self.full).full

    def _name(self, sampler: Sampler) -> str:
        """Names the roll-out of a sampler with an adaptor."""
        return f"the roll-out, {sampler.adaptor_name} {self.clock}"

    def _rollout(self, sampler: Sampler, denoiser: Denoiser | None = None) -> Callable[[], Tensor]:
        """Returns a roll-out."""
        return lambda: sampler.latents(self.captions, self.noise, denoiser)

    def rivals(self) -> dict[str, Case]:
        """Other methods' roll-outs, and Clockwork's where it computes the same as DeepCache."""
        cases = {}
        for chosen in self.cfg.rivals:
            name, rival = make_rival(self.cfg, {"rival": chosen})
            sampler = replace(self.full, rival=rival, adaptor_name=name)
            cases[f"the roll-out, {name}"] = Case(self._rollout(sampler), "the roll-out", self._flops_ratio(sampler))
        if "deepcache2" in self.cfg.rivals:
            cfg = OmegaConf.merge(self.cfg, {"cut": "layer1", "schedule": "clock2"})
            same = make_sampler(cast(DictConfig, cfg), self.teacher, Identity(), "identity")
            name = "the roll-out, identity clock2 at layer1"
            cases[name] = Case(self._rollout(same), "the roll-out, deepcache2", 1.0, 1.0)
        return cases

    def compiled(self) -> dict[str, Case]:
        """Compiled steps and roll-outs, against the same uncompiled."""
        cases = {}
        for name, functions in self.functions.items():
            full = partial(functions.full, self.full.split, self.arguments)
            cases[f"a full step, {name}"] = Case(full, "a full step", bar=COMPILED_BAR)
            step = self._adaptor_step(self.linear, functions)
            cases[f"an adaptor step, linear, {name}"] = Case(step, "an adaptor step, linear", bar=COMPILED_BAR)
            rollout, of_teacher = self._rollout(self.linear, self._denoiser(functions)), f"the roll-out, {name}"
            full_rollout = self._rollout(self.full, FullDenoiser(self.full.split, None, functions))
            cases[of_teacher] = Case(full_rollout, "the roll-out")
            ratio = self._flops_ratio(self.linear)
            cases[f"{self._name(self.linear)}, {name}"] = Case(rollout, of_teacher, ratio, ratio * ROLLOUT_BAR)
        return cases

    def _denoiser(self, functions: StepFunctions) -> Denoiser:
        """Returns the linear adaptor's denoiser with other functions."""
        assert self.linear.adaptor is not None
        return ClockworkDenoiser(self.linear.split, self.linear.adaptor, self.linear.schedule, functions)

    def exported(self) -> dict[str, Case]:
        """Exported steps and roll-outs in the runtimes of their formats, against the same in torch."""
        cases: dict[str, Case] = {}
        if self.teacher.device.type != "cpu" or self.teacher.unet.dtype != torch.float32:
            return cases  # graphs are exported on the CPU in float32
        full, adaptor = step_flops(self.linear)
        for name in self.cfg.exported:
            runner = exported_runner(self.linear, name)
            given = {**self.arguments, "conditional": None if self.branch is None else self.branch.bool()}
            past = runner.remember({}, 1, self.features.r_in.numpy(), self.features.r_out.numpy(), is_full=True)
            inputs = past | {key: value.numpy() for key, value in given.items() if isinstance(value, Tensor)}
            inputs["step"] = np.asarray(2, np.int64)
            step = partial(runner.adaptor, inputs)
            rollout = partial(latents_of_runner, runner, self.linear, self.captions, self.noise)
            cases[f"a full step, {name}"] = Case(partial(runner.full, inputs), "a full step")
            cases[f"an adaptor step, linear, {name}"] = Case(step, f"a full step, {name}", adaptor.full / full.full)
            cases[f"{self._name(self.linear)}, {name}"] = Case(rollout, self._name(self.linear))
        return cases

    def full_step_difference(self) -> float:
        """Returns the largest difference of a full step's output to the UNet's, which is 0."""
        return float((self.features.output - self.teacher.unet(**self.arguments, return_dict=False)[0]).abs().max())

    def differences(self) -> dict[str, float]:
        """Returns the relative L2 difference of the latents with compiled steps to those without, by name."""
        latents, differences = self._rollout(self.linear)(), {}
        for name, functions in self.functions.items():
            compiled = self._rollout(self.linear, self._denoiser(functions))()
            differences[name] = float((compiled - latents).norm() / latents.norm())
        return differences

    def hooks(self) -> dict[str, Case]:
        """What the hook of `clockwork.enable` costs per step besides the UNet and the adaptor."""
        dims = feature_dims(self.teacher, str(self.cfg.cut))
        without_text = tuple(name for name in INPUTS if name != "text_emb")
        steps = self.linear.schedule.adaptor_steps(self.linear.num_unet_calls)
        adaptors = [Identity(), Linear(dims, steps), Taylor(order=2), Hermite(), ResNet(dims, 8, 1, without_text)]
        return {
            f"the hook per step, {adaptor.kind}": Case(
                hook_image(self.teacher, str(self.cfg.cut), adaptor)[0], bar=HOOK_BAR_MS, count=STEPS
            )
            for adaptor in adaptors
        }


def _compiled_name(options: dict[str, Any]) -> str:
    """Names what was compiled with these arguments of `torch.compile`."""
    values = {**options, **(options.get("options") or {})}
    return ", ".join(f"{key}={value}" for key, value in values.items() if key != "options") or "compiled"


def _random_unet(teacher: Teacher, channels: tuple[int, ...]) -> UNet2DConditionModel:
    """Creates a UNet with random weights for a teacher's text features, with other sizes as in SD v1.5."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=teacher.latent_shape[-1],
        block_out_channels=channels,
        cross_attention_dim=teacher.unet.config.cross_attention_dim,
    )
    return unet.to(teacher.device, teacher.unet.dtype).eval().requires_grad_(False)
