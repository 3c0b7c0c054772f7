"""Calibration of an operating point on captions: one clocked roll-out, with a fit on each of its adaptor steps."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from clockwork.adaptors import Linear
from clockwork.calibration.denoiser import CalibratingDenoiser
from clockwork.calibration.least_squares import StepFit
from clockwork.calibration.options import FitOptions
from clockwork.calibration.progress import Progress
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.io.distributed import rank, share, world_size
from clockwork.io.fingerprint import digest
from clockwork.io.progress import progress_bar
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition, Teacher


@dataclass(frozen=True)
class Calibrated:
    """The result of a calibration.

    Attributes:
        sampler: The operating point with the fitted adaptor.
        fits: The figures of each adaptor step's fit.
        seconds: Duration, without loading the teacher, with that of runs that were stopped before.
    """

    sampler: Sampler
    fits: tuple[StepFit, ...]
    seconds: float

    @property
    def adaptor(self) -> Linear:
        """The fitted adaptor."""
        adaptor = self.sampler.adaptor
        assert isinstance(adaptor, Linear)
        return adaptor

    def figures(self) -> dict[str, Any]:
        """Returns the figures of the fits as plain data, for the adaptor's `config.json`."""
        return {"seconds": round(self.seconds, 2), "steps": [asdict(fit) for fit in self.fits]}


def calibrate_sampler(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    negatives: Sequence[str] = ("",),
    seed: int = 0,
    options: FitOptions | None = None,
    folder: Path | None = None,
) -> Calibrated:
    """Fits a linear adaptor for an operating point.

    With several processes, each rolls out its share of the captions, and all get the same adaptor.

    Args:
        sampler: The operating point. Its adaptor, for example the identity, only stands for the one to be fitted.
        prompts: The captions to calibrate on.
        negatives: Negative prompts, which the captions take in turn. Ignored without guidance.
        seed: Seed of the noise.
        options: How maps are fitted.
        folder: Where the state is kept for a calibration that is stopped; None to keep none.

    Returns:
        The operating point with the adaptor, and the figures of the fits.

    Raises:
        UserError: If the schedule has no adaptor steps or no full step before them, the captions are too few, there are
            no negative prompts, or features are not finite.
    """
    last_adaptor_step = max(steps_to_fit(sampler))
    if len(prompts) < world_size():
        raise UserError(f"{len(prompts)} captions are too few for {world_size()} processes: pass more captions")
    if not negatives:
        raise UserError('there are no negative prompts: pass at least one, for example the empty prompt ""')
    options = options or FitOptions()
    progress, save = _progress(sampler, prompts, negatives, seed, options, folder)
    guided = sampler.teacher.unet_calls_per_step(sampler.guidance) == 2
    denoiser = CalibratingDenoiser(sampler.split, sampler.schedule, sampler.guidance, options, progress, save)
    share_of_prompts = share(prompts)
    condition, _ = sampler.teacher.conditions([p.text for p in share_of_prompts], sampler.guidance, with_text_emb=False)
    negative = _negatives(sampler.teacher, share([negatives[i % len(negatives)] for i in range(len(prompts))]))
    noise = sampler.teacher.noise([p.id for p in share_of_prompts], seed)
    solver = make_solver(sampler.solver, sampler.teacher.noise_schedule)
    steps = rollout(denoiser, solver, sampler.steps, noise, condition, negative if guided else None, sampler.guidance)
    if progress.step and rank() == 0:
        print(f"calibration resumed after {len(progress.fits)} fitted steps", flush=True)
    with progress_bar(total=last_adaptor_step, desc="calibration", unit="step") as bar:
        for record in steps:
            bar.update()
            if record.step == last_adaptor_step:
                break
    save()
    adaptor = denoiser.fitted()
    adaptor.point = sampler.point
    placed = adaptor.to(sampler.teacher.device)
    result = replace(sampler, adaptor=placed, adaptor_name="linear", folder=None, trained_hash=None)
    return Calibrated(result, tuple(progress.fits), progress.seconds)


def steps_to_fit(sampler: Sampler) -> list[int]:
    """Lists the adaptor steps of an operating point.

    Args:
        sampler: The operating point.

    Raises:
        UserError: If its schedule has none.
    """
    steps = sampler.schedule.adaptor_steps(sampler.num_unet_calls)
    if not steps:
        raise UserError(f"schedule {sampler.schedule} has no adaptor steps to calibrate: use schedule=clock2")
    return steps


def _progress(
    sampler: Sampler,
    prompts: Sequence[Prompt],
    negatives: Sequence[str],
    seed: int,
    options: FitOptions,
    folder: Path | None,
) -> tuple[Progress, Callable[[], None]]:
    """Returns the state to go on from, and a function that saves it."""
    start, progress, file, identity = time.perf_counter(), Progress(), None, ""
    if folder is not None:  # weights are read for the digest, so not without need
        captions, place = [(p.id, p.text) for p in prompts], [world_size(), str(sampler.teacher.device)]
        identity = digest([sampler.identity(), captions, list(negatives), seed, asdict(options), *place])
        file = folder / f"progress{rank()}.safetensors"
        progress = Progress.load(file, identity)
        progress.keep_common_steps(sampler.num_unet_calls)
    seconds_before = progress.seconds

    def save() -> None:
        progress.seconds = seconds_before + time.perf_counter() - start
        if file is not None:
            progress.save(file, identity)

    return progress, save


def _negatives(teacher: Teacher, texts: Sequence[str]) -> Condition:
    """Encodes negative prompts, each text once."""
    by_text = {text: teacher.encode([text], False) if text else teacher.empty(False) for text in dict.fromkeys(texts)}
    if len(by_text) == 1:
        return next(iter(by_text.values()))
    each = list(by_text.values())
    joined = each[0]
    for condition in each[1:]:
        joined = Condition.concat(joined, condition)
    order = torch.tensor([list(by_text).index(text) for text in texts], device=joined.prompt_embeds.device)
    return joined.select(order)
