"""Compiled steps on pipelines: two graphs, no breaks, nothing compiled twice, and the images of the uncompiled steps.

The graphs run as they were traced (a backend of our own), so the images are equal bit for bit; inductor's are compared
in a slow test.
"""

from typing import Any

import pytest
import torch
from helpers.compiling import PROMPTS, Backend, both_ways, small_pipeline, small_unet
from helpers.pipelines import generate, make, reasons, steps
from torch import Tensor
from torch._dynamo.utils import counters

import clockwork
from clockwork.adaptors import History, Identity, Taylor
from clockwork.errors import UserError
from clockwork.pipeline.hook import get_hook
from clockwork.sampling.compiled import CompiledSteps, step_functions
from clockwork.sampling.steps import AdaptorInputs, adaptor_step, full_step
from clockwork.unet.split import SplitUNet

pytestmark = pytest.mark.usefixtures("empty_caches")


def clocked(pipe: Any, **options: Any) -> None:
    clockwork.enable(pipe, schedule="clock2", **options)


def test_two_graphs_serve_all_steps_prompts_and_scales() -> None:
    pipe, backend = small_pipeline()[0], Backend()
    eager, compiled = both_ways(pipe, backend, {})
    assert torch.equal(eager, compiled) and steps(pipe) == "FaFa" and not reasons(pipe)
    others: list[dict[str, Any]] = [{"prompt": "a green star", "guidance_scale": 2.0, "steps": 7}, {"seed": 3}]
    images = [generate(pipe, **other) for other in others]
    assert len(backend.graphs) == 2 and not counters["graph_break"] and not counters["recompiles"]
    assert max(backend.graphs) > 1.5 * min(backend.graphs)  # one is of an adaptor step, which is cheaper
    clocked(pipe)
    assert all(torch.equal(generate(pipe, **other), image) for other, image in zip(others, images, strict=True))


@pytest.mark.slow
def test_another_batch_size_compiles_once_more_and_then_never() -> None:
    pipe, backend = small_pipeline()[0], Backend()
    clocked(pipe, compile={"backend": backend})
    graphs = []
    for count in (1, 2, 3, 4, 1):
        image = generate(pipe, prompt=PROMPTS[:count])
        graphs.append(len(backend.graphs))
    assert graphs == [2, 4, 4, 4, 4] and image.isfinite().all()


def test_a_calibrated_adaptor_has_one_graph_for_all_its_steps() -> None:
    """Its map depends on the step, and its inputs on how many full steps there were; neither makes a graph. As with
    CUDA graphs, each run overwrites earlier results, which were copied before. The calibration itself is eager."""
    pipe, backend = small_pipeline()[0], Backend(pool=True)
    call: dict[str, Any] = {"num_inference_steps": 6, "guidance_scale": 3.0}
    adaptor = clockwork.calibrate(pipe, PROMPTS, schedule="clock3", compile={"backend": backend}, **call)
    assert not backend.graphs
    compiled = generate(pipe, steps=6, guidance_scale=3.0)
    assert steps(pipe) == "FaaFaa" and len(backend.graphs) == 2 and not counters["graph_break"]
    clockwork.enable(pipe, adaptor=adaptor)
    assert torch.equal(generate(pipe, steps=6, guidance_scale=3.0), compiled)
    assert len(backend.graphs) == 2


@pytest.mark.slow
def test_a_menu_of_compiled_entries() -> None:
    """Its images are those of the uncompiled menu, and what is chosen from it is compiled."""
    pipe, backend = small_pipeline()[0], Backend()
    arguments: dict[str, Any] = {"num_measured": 2, "runs": 1, "num_inference_steps": 4, "guidance_scale": 3.0}
    plain, compiled = (
        clockwork.tune(pipe, PROMPTS * 2, ["stage1"], ["clock2"], compile=compile, **arguments)
        for compile in (None, {"backend": backend})
    )
    assert get_hook(pipe.unet) is None
    assert torch.equal(plain.images, compiled.images)
    assert torch.equal(plain.entries[0].images, compiled.entries[0].images)
    count = len(backend.graphs)
    # The full step for one prompt and for several, the entry's for any number at once, and its adaptor step twice.
    assert count == 2 + 1 + 2
    compiled.use(pipe, 1)
    generate(pipe, guidance_scale=3.0)
    assert len(backend.graphs) == count + 2


@pytest.mark.slow
def test_forecasters_have_a_graph_for_each_number_of_full_steps() -> None:
    pipe, backend = small_pipeline()[0], Backend(pool=True)
    eager, compiled = both_ways(pipe, backend, {"steps": 8}, adaptor=Taylor(order=2))
    assert torch.equal(eager, compiled) and len(backend.graphs) == 4


@pytest.mark.slow
@pytest.mark.parametrize("how", ["torch.compile", "unet.compile"])
def test_a_unet_that_was_compiled_as_a_whole(how: str) -> None:
    """Its parts are compiled with its options while Clockwork is enabled, and the whole is as before afterwards."""
    pipe, backend = small_pipeline()[0], Backend()
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


def test_what_a_graph_reads_may_be_a_result_of_another() -> None:
    """A ControlNet with CUDA graphs of its own leaves its residuals in the memory that all graphs overwrite."""
    (pipe, call), backend = small_pipeline("StableDiffusionControlNetPipeline"), Backend(pool=True)
    pipe.controlnet.compile(backend=backend)
    eager, compiled = both_ways(pipe, backend, call)
    assert torch.equal(eager, compiled) and steps(pipe) == "FaFa"
    assert len(backend.graphs) == 3 and not counters["graph_break"]


def test_a_hook_that_is_added_later_runs() -> None:
    split, backend = SplitUNet(small_pipeline()[0].unet, "layer1"), Backend()
    compiled, call = (
        CompiledSteps({"backend": backend}),
        split.arguments(torch.ones(1, 4, 8, 8), 5, torch.ones(1, 4, 16)),
    )
    before = compiled.full(split, call).output
    hook = split.unet.conv_in.register_forward_hook(lambda _, inputs, output: 2 * output)
    with_hook = compiled.full(split, call).output
    assert torch.equal(with_hook, full_step(split, call).output) and not torch.equal(with_hook, before)
    hook.remove()
    assert torch.equal(compiled.full(split, call).output, before) and len(backend.graphs) == 2


@pytest.mark.slow
def test_what_cannot_be_one_graph_and_what_changes_too_often() -> None:
    pipe, backend = small_pipeline()[0], Backend()
    clocked(pipe, compile={"backend": backend})
    with torch._dynamo.config.patch(recompile_limit=1):
        generate(pipe, steps=2)
        with pytest.raises(UserError, match="compiled too often"):
            generate(pipe, steps=2, prompt=PROMPTS)
    hook = pipe.unet.conv_in.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    clocked(pipe, compile={"backend": backend})
    with pytest.raises(UserError, match="one graph"):
        generate(pipe)
    hook.remove()
    assert generate(pipe).isfinite().all()


def test_a_missing_compiler_is_told_at_once() -> None:
    from torch._inductor import config

    pipe = make()[0]
    with (
        config.patch({"cpp.cxx": (None, "/no/such/compiler")}),
        pytest.raises(UserError, match=r"install g\+\+ or clang.*backend"),
    ):
        clocked(pipe, compile=True)
    assert get_hook(pipe.unet) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("max-autotune", "pass True, or arguments"),
        ({"mode": "fastest"}, "Unrecognized mode=fastest"),
        ({"options": {"fast": True}}, "Unexpected optimization option fast;"),
        ({"modes": "default"}, "unexpected keyword argument 'modes'"),
        ({"backend": "inductr"}, "Invalid backend: 'inductr'"),
        ({"mode": "default", "options": {}}, "Either mode or options"),
    ],
)
def test_what_compile_cannot_be(options: Any, message: str) -> None:
    pipe = make()[0]
    with pytest.raises(UserError, match=message):
        clockwork.calibrate(pipe, PROMPTS, num_inference_steps=4, compile=options)
    with pytest.raises(UserError, match=message) as error:
        clocked(pipe, compile=options)
    assert "\n" not in str(error.value) and get_hook(pipe.unet) is None


@pytest.mark.parametrize(
    ("options", "device", "layout_optimization"),
    [
        (True, "cpu", False),
        ({"dynamic": False}, "cpu", False),
        ({"mode": "default"}, "cpu", None),
        ({"options": {"max_autotune": True}}, "cpu", None),
        (True, "cuda", None),
    ],
)
def test_the_memory_format_stays_on_a_cpu_unless_options_are_given(
    options: Any, device: str, layout_optimization: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []
    monkeypatch.setattr(torch, "compile", lambda function, **arguments: taken.append(arguments) or function)
    step_functions(options, torch.device(device))
    assert len(taken) == 2  # a full step and an adaptor step
    assert all((given.get("options") or {}).get("layout_optimization") is layout_optimization for given in taken)


@pytest.mark.slow
def test_inductor_computes_nearly_the_same() -> None:
    unet = small_unet(sample_size=8, cross_attention_dim=8)
    split, adaptor, compiled = SplitUNet(unet, "layer1"), Identity(), step_functions(True, torch.device("cpu"))
    call = split.arguments(torch.randn(2, 4, 8, 8), torch.tensor(500), torch.randn(2, 5, 8))
    eager = full_step(split, call)
    inputs = AdaptorInputs(None, None, 2, History(r_out_prev=eager.r_out))
    assert all(map(close, compiled.full(split, call), eager))
    assert all(map(close, compiled.adaptor(split, adaptor, call, inputs), adaptor_step(split, adaptor, call, inputs)))


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-5, rtol=1e-4)
