"""Clockwork on pipelines of every kind, each against the same pipeline without it: equality is exact."""

from typing import Any

import pytest
import torch
from pipelines import KINDS, make, paint
from torch import Tensor

import clockwork
from clockwork.pipeline.enable import enabled


def counts(pipe: Any) -> tuple[int, int]:
    """Full and adaptor steps of the last call."""
    steps = enabled(pipe).log.steps
    return sum(s.full for s in steps), sum(not s.full for s in steps)


def without_and_with(pipe: Any, **arguments: Any) -> tuple[Tensor, Tensor]:
    """The pipeline's latents, and those of clock 2; on the way, that full steps and `disable` are exact."""
    plain = paint(pipe, **arguments)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(paint(pipe, **arguments), plain)
    clockwork.enable(pipe, schedule="clock2")
    clocked = paint(pipe, **arguments)
    full, adaptor = counts(pipe)
    assert full - adaptor in (0, 1) and adaptor > 0  # alternating
    assert not any(step.why for step in enabled(pipe).log.steps)
    assert torch.equal(paint(pipe, **arguments), clocked)  # nothing stays behind
    clockwork.disable(pipe)
    assert torch.equal(paint(pipe, **arguments), plain)
    assert clocked.isfinite().all() and not torch.equal(clocked, plain)
    return plain, clocked


@pytest.mark.parametrize("kind", KINDS)
def test_pipeline(kind: str) -> None:
    pipe, arguments = make(kind)
    without_and_with(pipe, **arguments)
