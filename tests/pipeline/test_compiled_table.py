"""Compiled steps over the compatibility table: two graphs, no breaks, nothing compiled again, and the same images.

The graphs run as they were traced, so images are equal bit for bit. Numbers of graphs and breaks are torch's.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.compiling import PROMPTS, Backend, both_ways, small_pipeline
from helpers.pipelines import GIVEN, KINDS, generate, make, miniature_pipeline, random_adaptor, reasons, solver, steps
from test_pipeline import FEATURES, lora
from torch._dynamo.utils import counters

import clockwork
from clockwork.adaptors import FeatureDims, Residual, ResNet, UNet
from clockwork.calibration.options import FitOptions
from clockwork.teachers import Teacher

pytestmark = pytest.mark.usefixtures("empty_caches")


SOLVERS: list[Callable[[], Any]] = [  # timesteps of both types, and two calls per step
    lambda: solver(diffusers.DDIMScheduler),
    lambda: solver(diffusers.EulerDiscreteScheduler),
    lambda: solver(diffusers.HeunDiscreteScheduler),
    lambda: solver(diffusers.LCMScheduler),
    lambda: solver(diffusers.PNDMScheduler, skip_prk_steps=True),
]


def check(pipe: Any, call: dict[str, Any], **options: Any) -> None:
    """Two graphs serve an image and another one; both are those of the uncompiled steps."""
    backend, other = Backend(), {"guidance_scale": 2.0, "steps": 6, **call, "seed": 3}
    eager, compiled = both_ways(pipe, backend, call, **options)
    assert torch.equal(eager, compiled) and "a" in steps(pipe) and not reasons(pipe)
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled = generate(pipe, **other)
    assert len(backend.graphs) == counters["stats"]["unique_graphs"] == 2 and not counters["graph_break"]
    clockwork.enable(pipe, **{"schedule": "clock2", **options})
    assert torch.equal(generate(pipe, **other), compiled)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_compiled_pipeline(kind: str) -> None:
    check(*make(kind))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*lru_cache")  # torch's, about a check of its version in diffusers' upsampler
@pytest.mark.parametrize("feature", FEATURES)
def test_compiled_feature(feature: str) -> None:
    pipe = make()[0] if feature == "odd sizes" else small_pipeline()[0]  # odd for a UNet of four levels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' about casts
        call = FEATURES[feature](pipe)
    check(pipe, call)


@pytest.mark.slow
def test_an_embedding_of_the_guidance_scale() -> None:
    """As in latent consistency models: the scale is an input of the UNet, and guidance has no second half."""
    check(small_pipeline(time_cond_proj_dim=16)[0], {"guidance_scale": 5.0})


DIMS = FeatureDims(8, 16, 32, 0)  # of the small pipeline at stage1
INPUTS = ("r_in", "r_out_prev", "t_emb")


def trained(name: str, pipe: Any) -> Any:
    """A learned or calibrated adaptor; the learned ones with random weights."""
    torch.manual_seed(0)
    fits = {"calibrated": FitOptions(), "joint": FitOptions(joint=True), "of rank 4": FitOptions(rank=4)}
    if name in ("ResNet", "UNet"):
        return (ResNet if name == "ResNet" else UNet)(DIMS, 8, inputs=INPUTS)
    call = {"num_inference_steps": 6, "guidance_scale": 5.0}
    options = fits.get(name, FitOptions())
    linear = clockwork.calibrate(pipe, PROMPTS, "clock3", "stage1", options=options, **call)
    clockwork.disable(pipe)
    linear.point = None
    return Residual(linear, ResNet(DIMS, 8, 1, INPUTS)) if name == "correction of a calibrated" else linear


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "guidance"),
    [
        *((name, 5.0) for name in ("ResNet", "UNet", "calibrated", "joint", "of rank 4", "correction of a calibrated")),
        *((name, 1.0) for name in ("ResNet", "calibrated", "joint")),
    ],
)
def test_a_compiled_adaptor_with_weights(name: str, guidance: float) -> None:
    pipe = small_pipeline()[0]
    call = {"guidance_scale": guidance, "steps": 6}
    check(pipe, call, adaptor=trained(name, pipe), schedule="clock3", cut="stage1")


@pytest.mark.slow
def test_a_compiled_adaptor_that_reads_text(teacher: Teacher, text_adaptor: Path) -> None:
    check(miniature_pipeline(teacher), {**GIVEN}, adaptor=text_adaptor)


@pytest.fixture
def text_adaptor(teacher: Teacher, tmp_path: Path) -> Path:
    return random_adaptor(teacher, tmp_path / "adaptor")


@pytest.mark.slow
def test_what_changes_from_image_to_image() -> None:
    """Another solver compiles nothing, the first other scale of a LoRA each graph once more, and further ones nothing;
    the images are those of the uncompiled steps."""
    (pipe, _), backend = small_pipeline(), Backend()
    lora(pipe)
    images, graphs = [], []
    for compile in (False, {"backend": backend}):
        pipe.scheduler = solver()
        clockwork.enable(pipe, compile=compile)
        for kind in SOLVERS:
            pipe.scheduler = kind()
            images.append(generate(pipe))
            graphs.append(len(backend.graphs))
        for scale in (0.4, 0.7, 0.0, None, 0.3):
            images.append(generate(pipe, cross_attention_kwargs=None if scale is None else {"scale": scale}))
            graphs.append(len(backend.graphs))
    count = len(images) // 2
    assert all(map(torch.equal, images[:count], images[count:]))
    assert graphs[count:] == [2] * len(SOLVERS) + [4] * 5 and not counters["graph_break"]
