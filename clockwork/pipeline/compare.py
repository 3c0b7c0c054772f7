"""The same picture without and with Clockwork."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from clockwork.pipeline.enable import disabled
from clockwork.pipeline.summary import Summary, summarise


@dataclass(frozen=True)
class Pair:
    prompt: str
    seed: int
    pictures: Tensor  # 2 × 3 × height × width, 8 bits: without, with
    seconds_without: float
    seconds_with: float
    summary: Summary

    def told(self) -> dict[str, Any]:
        """All but the pictures, as plain data."""
        values = {name: getattr(self, name) for name in ("prompt", "seed", "seconds_without", "seconds_with")}
        return {**values, **asdict(self.summary)}


def compare(pipe: Any, prompt: str, seed: int, call: Mapping[str, Any]) -> Pair:
    """`pipe` is enabled; `call` holds its further arguments. On a GPU each way is run once before it is timed."""
    with disabled(pipe):
        without, seconds_without = _timed(pipe, prompt, seed, call)
    clocked, seconds_with = _timed(pipe, prompt, seed, call)
    pictures = (torch.cat([without, clocked]).cpu().float() * 255).round().to(torch.uint8)
    return Pair(prompt, seed, pictures, seconds_without, seconds_with, summarise(pipe))


def _timed(pipe: Any, prompt: str, seed: int, call: Mapping[str, Any]) -> tuple[Tensor, float]:
    for _ in range(2 if pipe.device.type == "cuda" else 1):
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        images = pipe(prompt, generator=generator, output_type="pt", **call).images.cpu()  # waits for the device
        seconds = time.perf_counter() - start
    return images, seconds
