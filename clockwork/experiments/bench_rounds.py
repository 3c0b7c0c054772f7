"""Rounds of the benchmark: the cases of a group in turn, and how long is left."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from clockwork.experiments.bench_parts import Case
from clockwork.io.units import duration
from clockwork.metrics.latency import time_in_turn


@dataclass(frozen=True)
class Group:
    """Cases that are timed in turn.

    Attributes:
        name: What they are.
        cases: The cases by name. A case is compared with one of its group.
        rounds: How often each is timed; 0 leaves the group out.
        warm_up: How many rounds go before them untimed.
    """

    name: str
    cases: Mapping[str, Case]
    rounds: int
    warm_up: int = 1


def time_groups(groups: Sequence[Group], device: torch.device) -> dict[str, list[float]]:
    """Times groups one after the other, and prints before every round how long is left.

    Args:
        groups: The groups.
        device: Waited for before and after each run.

    Returns:
        The durations of every case in milliseconds, by name.
    """
    groups = [group for group in groups if group.rounds]
    print("first runs, in which steps are compiled: up to minutes", flush=True)
    seconds = [[_round(group, device)[1] for _ in range(group.warm_up)][-1] for group in groups]
    times: dict[str, list[float]] = {name: [] for group in groups for name in group.cases}
    for i, group in enumerate(groups):
        later = sum(each.rounds * s for each, s in zip(groups[i + 1 :], seconds[i + 1 :], strict=True))
        for number in range(group.rounds):
            left = later + (group.rounds - number) * seconds[i]
            print(f"{group.name}, round {number + 1} of {group.rounds}: about {duration(left)} left", flush=True)
            durations, seconds[i] = _round(group, device)
            for name, ms in durations.items():
                times[name].append(ms)
    return times


def _round(group: Group, device: torch.device) -> tuple[dict[str, float], float]:
    """Runs every case once; returns the milliseconds of each, per step or image, and the seconds of the round."""
    start = time.perf_counter()
    durations = time_in_turn([case.call for case in group.cases.values()], device, runs=1, warm_up=0)
    per_count = {name: ms / case.count for (name, case), (ms,) in zip(group.cases.items(), durations, strict=True)}
    return per_count, time.perf_counter() - start
