"""Times the parts against each other, in turns, so that a busy spell affects all alike."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import diffusers
import torch
from omegaconf import DictConfig, OmegaConf

from clockwork.experiments.bench_parts import Case, Parts
from clockwork.metrics.latency import device_name, time_in_turn
from clockwork.reports.timings import Timing, Timings
from clockwork.teachers import Teacher

SETTINGS = ("teacher_name", "cut", "schedule", "solver", "steps", "guidance", "batch", "channels")
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
    older = None if cfg.compare is None else Timings.read(Path(cfg.compare))
    if older is not None:
        older.require_settings(settings)
    with torch.no_grad():
        parts = Parts(cfg)
        cases = {**parts.steps(), **parts.rollouts(), **parts.rivals(), **parts.compiled()}
        cases |= {**parts.exported(), **parts.hooks()}
        durations = time_in_turn([case.call for case in cases.values()], parts.teacher.device, cfg.rounds, warm_up=2)
        differences, full_step = parts.differences(), parts.full_step_difference()
    timings = Timings(machine(parts.teacher), settings, _rows(cases, durations))
    timings.write(Path(cfg.output))
    print(f"{timings}\n\nrows in {cfg.output}")
    print(f"output of a full step: largest difference {full_step:.1e} to the UNet's")
    for name, difference in differences.items():
        print(f"latents of the roll-out, {name}: relative L2 difference {difference:.1e} to those of uncompiled steps")
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


def _rows(cases: Mapping[str, Case], durations: Sequence[Sequence[float]]) -> tuple[Timing, ...]:
    """Summarises the durations of all cases."""
    times = {
        name: [ms / case.count for ms in each] for (name, case), each in zip(cases.items(), durations, strict=True)
    }
    return tuple(
        Timing.of(name, times[name], case.to, times[case.to] if case.to else None, case.flops_ratio, case.bar)
        for name, case in cases.items()
    )
