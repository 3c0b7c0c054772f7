"""What training, calibration and evaluation cost besides the teacher: a small run of each on the miniature."""

from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from clockwork.adaptors import Identity
from clockwork.calibration.fit import calibrate_sampler
from clockwork.data.prompts import Prompt, chunks
from clockwork.evaluation.text_to_image import Evaluation
from clockwork.experiments.adaptor_in_training import make_adaptor
from clockwork.experiments.bench_parts import Case
from clockwork.experiments.build import make_metrics, make_sampler
from clockwork.experiments.calibrate import fit_options
from clockwork.experiments.configs import compose_config
from clockwork.experiments.optimisation import optimisation
from clockwork.experiments.training_data import make_data
from clockwork.io.device import lightning_device
from clockwork.metrics.base import Batch, measurable, measure
from clockwork.reports.timings import Timing
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.training.plan import adaptor_plan

COUNT, BATCH = 64, 32  # captions, and how many at once
TEACHER, EVALUATION = "the teacher's roll-outs, per caption", "evaluation, per image"
STAGES = ("text", "VAE", "metrics")  # of an evaluation besides the teacher's roll-outs
TRAINING_BAR = 1 / 0.85  # of a training whose examples are used once, to its teacher's roll-outs


class Work:
    """Training, calibration and evaluation of the miniature with the values of its configs, of `COUNT` captions.

    Args:
        device: Key `device` of the commands.
        cache: Folder where metrics keep the sums over their reference images.
        count: Number of captions.
    """

    def __init__(self, device: str, cache: Path, count: int = COUNT) -> None:
        self.count, where = count, ["teacher=miniature", f"device={device}"]
        few = [f"prompts.count={count}", f"prompts_per_epoch={count}", f"generation_batch_size={BATCH}"]
        measured = [f"prompts.count={count}", "metrics.reference=500", f"metrics.cache={cache}"]
        self.training = compose_config("train", [*where, *few])
        self.calibration = compose_config("calibrate", [*where, f"count={count}", f"batch_size={BATCH}"])
        self.evaluation = compose_config("evaluate", [*where, *measured, f"batch_size={BATCH}"])
        self.teacher = instantiate(self.evaluation.teacher)
        self.full = make_sampler(self.evaluation, self.teacher)
        self.prompts: Sequence[Prompt] = instantiate(self.training.prompts)

    def cases(self) -> dict[str, Case]:
        """Returns what is timed: the teacher's roll-outs, what is compared with them, and an evaluation."""
        cases = {TEACHER: Case(self._rollouts, EVALUATION), **self._training(), **self._calibration()}
        return {name: replace(case, count=self.count) for name, case in {**cases, **self._evaluation()}.items()}

    def _rollouts(self) -> list[Tensor]:
        """Runs the teacher from noise to latents."""
        return [
            self.full.latents([prompt.text for prompt in batch], self.teacher.noise([prompt.id for prompt in batch]))
            for batch in chunks(self.prompts, BATCH)
        ]

    def _training(self) -> dict[str, Case]:
        """An epoch that uses its examples once, and one that uses them as often as the config says."""
        cases = {}
        for repeats in dict.fromkeys((1, self.training.repeats_per_epoch)):
            cfg = cast(DictConfig, OmegaConf.merge(self.training, {"repeats_per_epoch": repeats}))
            name, adaptor = make_adaptor(cfg, self.teacher, None)
            sampler = make_sampler(cfg, self.teacher, adaptor.to(self.teacher.device), name)
            data = partial(make_data, cfg, TrajectoryExamples(sampler), self.prompts, [])
            plan = adaptor_plan(sampler, data(), epochs=1)
            ratio = (plan.teacher_flops + plan.training_flops) / plan.teacher_flops
            times = "once" if repeats == 1 else f"{repeats} times"
            run, bar = partial(self._epoch, cfg, sampler, data), TRAINING_BAR if repeats == 1 else None
            cases[f"training with examples used {times}, per caption"] = Case(run, TEACHER, ratio, bar)
        return cases

    def _epoch(self, cfg: DictConfig, sampler: Any, data: Callable[[], Any]) -> None:
        """Trains an adaptor for an epoch, in a new folder and without its printed lines."""
        steps = sampler.schedule.adaptor_steps(sampler.num_unet_calls)
        with TemporaryDirectory() as folder, torch.enable_grad(), redirect_stdout(StringIO()):
            module = AdaptorDistillation(sampler.adaptor, steps, cfg.guidance, guided=cfg.guided, **optimisation(cfg))
            trainer = {**cfg.trainer, **lightning_device(self.teacher.device, 1)}
            fit(module, Path(folder), data(), max_epochs=1, logger=False, **trainer)

    def _calibration(self) -> dict[str, Case]:
        """A calibration, whose roll-out has the low-res path on every step, too."""
        dims = feature_dims(self.teacher, str(self.calibration.cut))
        sampler = make_sampler(self.calibration, self.teacher, Identity(dims), "identity")
        run = partial(calibrate_sampler, sampler, self.prompts, options=fit_options(self.calibration))
        return {"calibration, per caption": Case(run, TEACHER)}

    def _evaluation(self) -> dict[str, Case]:
        """An evaluation of the teacher end to end, and its stages besides the UNet."""
        metrics = measurable(make_metrics(self.evaluation.metrics), {"images", "captions"})
        captions = [prompt.text for prompt in self.prompts]
        latents = torch.cat(self._rollouts())
        images = self.teacher.decode(latents)
        evaluation = partial(Evaluation, prompts=self.prompts, metrics=metrics, batch_size=BATCH, latency=False)

        def end_to_end() -> None:
            with TemporaryDirectory() as folder:
                evaluation(folder=Path(folder)).measure(self.full)

        stages: tuple[Callable[[], Any], ...] = (
            lambda: [self.full.conditions(list(batch)) for batch in chunks(captions, BATCH)],
            lambda: self.teacher.decode(latents),
            lambda: measure(metrics, [Batch(images, captions)]),
        )
        cases = {stage_name(name): Case(run, EVALUATION) for name, run in zip(STAGES, stages, strict=True)}
        return {EVALUATION: Case(end_to_end), **cases}


def stage_name(stage: str) -> str:
    """Names the row of a stage of an evaluation."""
    return f"{stage} of an evaluation, per image"


def summary(rows: Sequence[Timing]) -> list[str]:
    """Says what the rows of `Work.cases` mean: the teacher's shares, and images per second.

    Args:
        rows: The rows.

    Returns:
        A sentence each.
    """
    ms = {row.what: row.ms for row in rows}
    shares = [
        f"{row.what.removesuffix(', per caption')} {1 / row.ratio:.3f}"
        for row in rows
        if row.ratio and row.to == TEACHER
    ]
    stages = {"UNet": ms[TEACHER], **{stage: ms[stage_name(stage)] for stage in STAGES}}
    speeds = ", ".join(f"{name} {1000 / each:.1f}" for name, each in stages.items())
    return [
        f"the teacher's share of the time: {', '.join(shares)}",
        f"images per second of an evaluation: {1000 / ms[EVALUATION]:.1f} end to end; of its stages alone: {speeds}",
    ]
