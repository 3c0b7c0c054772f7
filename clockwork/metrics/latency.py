"""Latency of latent generation (paper, Section 5: mean of 10 runs)."""

import platform
import time
from collections.abc import Callable
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
    times = []
    for _ in range(warm_up + runs):
        _synchronize(device)
        start = time.perf_counter()
        call()
        _synchronize(device)
        times.append(1000 * (time.perf_counter() - start))
        after_run()
    low, median, high = np.percentile(times[warm_up:], [25, 50, 75])
    mean = float(np.mean(times[warm_up:]))
    return Latency(mean, float(median), float(high - low), device_name(device))


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
