"""Compiled steps on pipelines: two graphs, no breaks, nothing compiled twice, and the images of the uncompiled steps.

The graphs run as they were traced (a backend of our own), so the images are equal bit for bit; inductor's are compared
in a slow test.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers.pipelines import KINDS, generate, make, reasons, steps
from torch import Tensor
from torch._dynamo.utils import counters

import clockwork
from clockwork.adaptors import History, Identity
from clockwork.errors import UserError
from clockwork.pipeline.enable import enabled_hook
from clockwork.sampling.compiled import CompiledSteps
from clockwork.sampling.steps import AdaptorInputs, adaptor_step, full_step
from clockwork.unet.split import SplitUNet

PROMPTS = ["a red circle", "a green star", "two blue squares", "a ring", "a grey moon", "a white cross"]


@dataclass
class Backend:
    """Runs a graph as it is, and counts them. With `pool`, results are overwritten by the next run of any graph."""

    pool: bool = False
    graphs: list[int] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)

    def __call__(self, graph: torch.fx.GraphModule, _: Any) -> Any:
        self.graphs.append(len(graph.graph.nodes))

        def run(*arguments: Any) -> Any:
            for buffer in self.buffers:
                buffer.fill_(torch.nan)
            results = [result.clone() for result in graph.forward(*arguments)]
            self.buffers += results
            return results

        return run if self.pool else graph.forward


@pytest.fixture(autouse=True)
def empty_caches() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def clocked(pipe: Any, **options: Any) -> None:
    clockwork.enable(pipe, schedule="clock2", **options)


def both_ways(pipe: Any, backend: Any, call: dict[str, Any], **options: Any) -> tuple[Tensor, Tensor]:
    """The pipeline's latents with the uncompiled and the compiled steps."""
    clocked(pipe, **options)
    eager = generate(pipe, **call)
    clocked(pipe, compile={"backend": backend}, **options)
    return eager, generate(pipe, **call)


def test_two_graphs_serve_all_steps_prompts_and_scales() -> None:
    pipe, backend = make()[0], Backend()
    eager, compiled = both_ways(pipe, backend, {})
    assert torch.equal(eager, compiled) and steps(pipe) == "FaFa" and not reasons(pipe)
    others: list[dict[str, Any]] = [{"prompt": "a green star", "guidance_scale": 2.0, "steps": 7}, {"seed": 3}]
    images = [generate(pipe, **other) for other in others]
    assert len(backend.graphs) == 2 and not counters["graph_break"] and not counters["recompiles"]
    assert max(backend.graphs) > 2 * min(backend.graphs)  # one is of an adaptor step, which is cheaper
    clocked(pipe)
    assert all(torch.equal(generate(pipe, **other), image) for other, image in zip(others, images, strict=True))


@pytest.mark.slow
def test_another_batch_size_compiles_once_more_and_then_never() -> None:
    pipe, backend = make()[0], Backend()
    clocked(pipe, compile={"backend": backend})
    graphs = []
    for count in (1, 2, 3, 4, 1):
        image = generate(pipe, prompt=PROMPTS[:count])
        graphs.append(len(backend.graphs))
    assert graphs == [2, 4, 4, 4, 4] and image.isfinite().all()


def test_a_calibrated_adaptor_has_one_graph_for_all_its_steps() -> None:
    """Its map depends on the step, and its inputs on how many full steps there were; neither makes a graph. As with
    CUDA graphs, each run overwrites earlier results, which were copied before."""
    pipe, backend = make()[0], Backend(pool=True)
    call: dict[str, Any] = {"steps": 6, "guidance_scale": 3.0}
    adaptor = clockwork.calibrate(pipe, PROMPTS, schedule="clock3", num_inference_steps=6, guidance_scale=3.0)
    eager = generate(pipe, **call)
    clockwork.enable(pipe, adaptor=adaptor, compile={"backend": backend})
    assert torch.equal(generate(pipe, **call), eager) and steps(pipe) == "FaaFaa"
    assert len(backend.graphs) == 2 and not counters["graph_break"]


@pytest.mark.slow
def test_forecasters_have_a_graph_for_each_number_of_full_steps() -> None:
    from clockwork.adaptors import Taylor

    pipe, backend = make()[0], Backend()
    eager, compiled = both_ways(pipe, backend, {"steps": 8}, adaptor=Taylor(order=1))
    assert torch.equal(eager, compiled) and len(backend.graphs) == 3


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torch.compile", "unet.compile"])
def test_a_unet_that_was_compiled_as_a_whole(how: str) -> None:
    """Its parts are compiled with its options while Clockwork is enabled, and the whole is as before afterwards."""
    pipe, backend = make()[0], Backend()
    plain = generate(pipe)
    clocked(pipe)
    eager = generate(pipe)
    clockwork.disable(pipe)
    if how == "torch.compile":
        pipe.unet = torch.compile(pipe.unet, backend=backend, fullgraph=True)
    else:
        pipe.unet.compile(backend=backend, fullgraph=True)
    compiled_unet = pipe.unet
    clocked(pipe)
    clocked(pipe)  # new settings; the options are still known
    assert torch.equal(generate(pipe), eager) and len(backend.graphs) == 2
    clocked(pipe, compile=False)
    assert torch.equal(generate(pipe), eager) and len(backend.graphs) == 2
    clockwork.disable(pipe)
    assert pipe.unet is compiled_unet
    assert torch.equal(generate(pipe), plain) and len(backend.graphs) == 3


@pytest.mark.slow
def test_a_missing_compiler_is_told() -> None:
    from torch._inductor import config

    pipe = make()[0]
    clocked(pipe, compile=True)
    with config.patch({"cpp.cxx": (None, "/no/such/compiler")}), pytest.raises(UserError, match="lacks a compiler"):
        generate(pipe)


def test_what_compile_cannot_be() -> None:
    with pytest.raises(UserError, match="pass True, or arguments"):
        clocked(make()[0], compile="max-autotune")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_pipelines_of_every_kind(kind: str) -> None:
    (pipe, call), backend = make(kind), Backend()
    eager, compiled = both_ways(pipe, backend, call)
    assert torch.equal(eager, compiled) and len(backend.graphs) == 2 and not counters["graph_break"]
    assert not any(step.forced_full_reason for step in enabled_hook(pipe).log.steps)


@pytest.mark.slow
def test_inductor_computes_nearly_the_same() -> None:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    ).requires_grad_(False)
    split, adaptor, compiled = SplitUNet(unet.eval(), "layer1"), Identity(), CompiledSteps()
    call = split.arguments(torch.randn(2, 4, 8, 8), torch.tensor(500), torch.randn(2, 5, 8))
    eager = full_step(split, call)
    inputs = AdaptorInputs(None, None, 2, History(r_out_prev=eager.r_out))
    assert all(map(close, compiled.full(split, call), eager))
    assert all(map(close, compiled.adaptor(split, adaptor, call, inputs), adaptor_step(split, adaptor, call, inputs)))


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, rtol=1e-4)
