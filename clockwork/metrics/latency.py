"""Latency of latent generation (paper, Section 5: mean of 10 runs)."""

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Latency:
    """Of one image's latents, in milliseconds, under the names that rows have for it."""

    latency_ms: float  # mean
    latency_median_ms: float
    latency_spread_ms: float  # interquartile range
    latency_device: str


def measure_latency(
    call: Callable[[], Any],
    device: torch.device,
    runs: int = 10,
    warm_up: int = 2,
    after_run: Callable[[], None] = lambda: None,
) -> Latency:
    """Times a call that computes on a device.

    Args:
        call: What is timed; its inputs have to be on the device already.
        device: Waited for before and after each run.
        runs: How many are timed.
        warm_up: How many go before them untimed.
        after_run: Called after every run, untimed.
    """
    return measure_in_turn([call], device, runs, warm_up, after_run)[0]


def measure_in_turn(
    calls: Sequence[Callable[[], Any]],
    device: torch.device,
    runs: int = 10,
    warm_up: int = 2,
    after_run: Callable[[], None] = lambda: None,
) -> list[Latency]:
    """Times several calls in turn, so that a spell in which the device is busy or slow affects all alike.

    Args:
        calls: What is timed, as in `measure_latency`.
        device: As in `measure_latency`.
        runs: How many of each are timed.
        warm_up: As in `measure_latency`, of each call.
        after_run: As in `measure_latency`.

    Returns:
        The latency of each call.
    """
    return [_latency(times, device) for times in time_in_turn(calls, device, runs, warm_up, after_run)]


def time_in_turn(
    calls: Sequence[Callable[[], Any]],
    device: torch.device,
    runs: int,
    warm_up: int,
    after_run: Callable[[], None] = lambda: None,
) -> list[list[float]]:
    """Times several calls in turn, as `measure_in_turn` does.

    Args:
        calls: As in `measure_in_turn`, and so are the other arguments.
        device: Waited for before and after each run.
        runs: How many of each are timed.
        warm_up: How many of each go before them untimed.
        after_run: Called after every run, untimed.

    Returns:
        The durations of each call's runs, in milliseconds.
    """
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(warm_up + runs):
        for call, milliseconds in zip(calls, times, strict=True):
            _synchronize(device)
            start = time.perf_counter()
            call()
            _synchronize(device)
            milliseconds.append(1000 * (time.perf_counter() - start))
            after_run()
    return [milliseconds[warm_up:] for milliseconds in times]


def _latency(times: Sequence[float], device: torch.device) -> Latency:
    """Summarises the times of one call in milliseconds."""
    low, median, high = np.percentile(times, [25, 50, 75])
    return Latency(float(np.mean(times)), float(median), float(high - low), device_name(device))


def device_name(device: torch.device) -> str:
    """The name of the hardware: what a latency belongs to."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {f'{torch.get_num_threads()} threads' if device.type == 'cpu' else device.type}"


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
