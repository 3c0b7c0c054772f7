"""Latency of latent generation, with PyTorch's benchmark utilities (paper, Section 5: mean of 10 runs)."""

from collections.abc import Callable
from typing import Any

from torch.utils.benchmark import Timer


def latency_ms(call: Callable[[], Any], runs: int = 10) -> float:
    """Mean milliseconds of a call after one to warm up; the Timer waits for a GPU by itself."""
    call()
    return Timer("call()", globals={"call": call}).timeit(runs).mean * 1000
