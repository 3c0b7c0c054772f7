"""Times the parts against each other, in turns, so that a busy spell affects all alike."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from omegaconf import DictConfig, OmegaConf

from clockwork.experiments.bench_parts import Case, Parts
from clockwork.experiments.bench_rounds import Group, time_groups
from clockwork.experiments.bench_work import Work, summary
from clockwork.experiments.build import make_rival
from clockwork.io.outputs import check_outputs
from clockwork.metrics.latency import device_name
from clockwork.reports.timings import MARK, Timing, Timings
from clockwork.teachers import Teacher

SETTINGS = ("teacher_name", "cut", "schedule", "solver", "steps", "guidance", "batch", "channels")
ROLLOUTS = ("diffusers' pipeline", "the roll-out")  # how the names of roll-outs start
LARGEST_DIFFERENCE = 0.1  # of compiled latents to eager ones, relative; rounding is far below, wrong memory far above


def bench(cfg: DictConfig) -> None:
    """Times all cases, prints a table with the machine's name, and writes it as rows.

    Args:
        cfg: The composed config of the command `bench`.

    Raises:
        UserError: If the file to compare with is missing or of other settings.
        RuntimeError: If full steps do not compute what the UNet does, or compiled steps what the others do.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    settings = {name: plain[name] for name in SETTINGS}
    check_outputs(Path(cfg.output).parent, Path(cfg.output).name, mark=MARK)
    older = None if cfg.compare is None else Timings.read(Path(cfg.compare))
    if older is not None:
        older.require_settings(settings)
    for name in cfg.rivals:
        make_rival(cfg, {"rival": name})
    print("preparing the cases; an export takes up to minutes", flush=True)
    with torch.no_grad():
        parts = Parts(cfg)
        groups = _groups(cfg, parts)
        times = time_groups(groups, parts.teacher.device)
        differences, full_step = parts.differences(), parts.full_step_difference()
    cases = {name: case for group in groups for name, case in group.cases.items() if name in times}
    timings = Timings(machine(parts.teacher), settings, _rows(cases, times))
    timings.write(Path(cfg.output))
    print(f"\n{timings}\n\nrows in {cfg.output}")
    print(f"output of a full step: largest difference {full_step:.1e} to the UNet's")
    for name, difference in differences.items():
        print(f"latents of the roll-out, {name}: relative L2 difference {difference:.1e} to those of uncompiled steps")
    for sentence in summary(timings.rows) if cfg.work_rounds else []:
        print(sentence)
    for sentence in [] if older is None else timings.slower_than(older) or ["nothing has become slower"]:
        print(sentence)
    if full_step != 0:
        raise RuntimeError("a full step does not compute what the UNet does, bit for bit")
    if wrong := [name for name, difference in differences.items() if not difference <= LARGEST_DIFFERENCE]:
        raise RuntimeError(f"compiled steps ({', '.join(wrong)}) do not compute what uncompiled ones do")


def machine(teacher: Teacher) -> str:
    """Names the device, the teacher's precision and the versions that ran, in one line.

    Args:
        teacher: The teacher.
    """
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
    return f"{device_name(teacher.device)} of {os.cpu_count()} cores, {teacher.precision}; {versions}"


def _groups(cfg: DictConfig, parts: Parts) -> list[Group]:
    """Returns all cases, those that take about as long in one group."""
    compiled, exported, hooks = parts.compiled(), parts.exported(), parts.hooks()
    cases = {**parts.steps(), **parts.rollouts(), **parts.rivals(), **compiled, **exported}
    work = Work(cfg.device, Path(cfg.output).parent / "cache").cases() if cfg.work_rounds else {}
    rollouts = {name: case for name, case in cases.items() if name.startswith(ROLLOUTS)}
    steps = {name: case for name, case in cases.items() if name not in rollouts}
    return [
        Group("steps", steps, cfg.rounds, warm_up=2),
        # Short calls, apart from long ones, after which they would first fill the caches again.
        Group("the hook", hooks, cfg.rounds, warm_up=2),
        Group("roll-outs", rollouts, cfg.rollout_rounds),
        Group("training, calibration and evaluation", work, cfg.work_rounds),
    ]


def _rows(cases: Mapping[str, Case], times: Mapping[str, Sequence[float]]) -> tuple[Timing, ...]:
    """Summarises the durations of all cases."""
    return tuple(
        Timing.of(name, times[name], case.to, times[case.to] if case.to else None, case.flops_ratio, case.bar)
        for name, case in cases.items()
    )
