"""Adaptor steps of the positive half of guidance in compiled graphs: each is a graph of half the batch."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.calibration import CAPTIONS, PROMPTS, small_sampler
from helpers.compiling import Backend, small_pipeline
from helpers.models import small_teacher
from helpers.pipelines import generate, reasons, steps
from torch._dynamo.utils import counters

import clockwork
from clockwork.calibration.fit import calibrate_sampler
from clockwork.calibration.options import FitOptions

OPTIONS = FitOptions(terms=("r_in", "r_in_change"), positive_only=True)
pytestmark = pytest.mark.usefixtures("empty_caches")


def test_two_graphs_serve_all_steps_of_a_pipeline() -> None:
    """As with CUDA graphs, each run overwrites earlier results; the predictions of the previous step are copies."""
    pipe, backend = small_pipeline()[0], Backend(pool=True)
    call: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": 3.0}
    compile = {"backend": backend}
    adaptor = clockwork.calibrate(pipe, list(CAPTIONS), "clock3", options=OPTIONS, compile=compile, **call)
    assert not backend.graphs
    compiled = generate(pipe, steps=6, guidance_scale=3.0)
    assert steps(pipe) == "FaaFaa" and not reasons(pipe)
    assert len(backend.graphs) == 2 and not counters["graph_break"] and not counters["recompiles"]
    clockwork.enable(pipe, adaptor=adaptor, schedule="clock3")
    assert torch.equal(generate(pipe, steps=6, guidance_scale=3.0), compiled)
    assert len(backend.graphs) == 2


def test_a_compiled_teacher_samples_the_same_latents() -> None:
    sampler = calibrate_sampler(small_sampler(), PROMPTS, options=OPTIONS).sampler
    backend, captions, noise = Backend(pool=True), list(CAPTIONS[:2]), sampler.teacher.noise([1, 2])
    compiled = replace(sampler, teacher=small_teacher("sd15", compile={"backend": backend}))
    assert torch.equal(compiled.latents(captions, noise), sampler.latents(captions, noise))
    assert len(backend.graphs) == 2 and not counters["graph_break"]
