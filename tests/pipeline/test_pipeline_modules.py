"""What else is done to a pipeline while Clockwork is enabled: copies, saving, moving, offloading, compiling."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from helpers.pipelines import counts, fresh, generate, make, picture, reasons, solver, steps
from torch import Tensor

import clockwork
from clockwork.errors import UserError
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.step_tracking import UNKNOWN_POSITION


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return generate(make()[0])


@pytest.fixture(scope="module")
def clocked() -> Tensor:
    return generate(fresh()[0])


def test_save_pretrained(plain: Tensor, tmp_path: Path) -> None:
    pipe, _ = fresh()
    generate(pipe)
    pipe.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    again.set_progress_bar_config(disable=True)
    ours, theirs = make()[0].unet.state_dict(), again.unet.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(generate(again), plain)  # saved as it is without Clockwork


@pytest.mark.parametrize("save", [pickle.dumps, lambda unet: torch.save(unet, io.BytesIO())])
def test_pickling_asks_to_disable_first(save: Callable[[Any], Any], plain: Tensor) -> None:
    pipe, _ = fresh()
    with pytest.raises(UserError, match=r"call clockwork\.disable\(pipe\) first"):
        save(pipe.unet)
    assert steps(pipe) == "" and generate(pipe) is not None and steps(pipe) == "FaFa"
    clockwork.disable(pipe)
    pipe.unet = pickle.loads(pickle.dumps(pipe.unet))
    assert torch.equal(generate(pipe), plain)


def test_from_pipe(plain: Tensor) -> None:
    """A pipeline made of another has its UNet, and its clock as long as it has its solver."""
    pipe, _ = fresh()
    changed = {"image": picture(3), "strength": 0.75}
    other = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    with_it = generate(other, **changed)
    assert counts(pipe) == (2, 1)
    alone, _ = fresh("StableDiffusionImg2ImgPipeline")
    assert torch.equal(generate(alone, **changed), with_it)
    other.scheduler = solver(type(pipe.scheduler))
    full = generate(other, **changed)  # of this solver nothing is known
    assert reasons(pipe) == [UNKNOWN_POSITION] * 3
    clockwork.disable(other)
    assert torch.equal(generate(other, **changed), full)
    assert torch.equal(generate(pipe), plain)
    clockwork.enable(other)
    assert torch.equal(generate(other, **changed), with_it)


def test_a_copy_is_clocked_by_itself(plain: Tensor, clocked: Tensor) -> None:
    pipe, _ = fresh()
    generate(pipe, seed=5)
    twin = copy.deepcopy(pipe)
    for weight in pipe.unet.parameters():
        weight.zero_()
    assert torch.equal(generate(twin), clocked)
    assert steps(twin) == "FaFa" and not reasons(twin)
    assert enabled_hook(twin).denoiser.split.unet is twin.unet and enabled_hook(twin).pipe is twin
    clockwork.disable(twin)
    assert torch.equal(generate(twin), plain)
    assert clockwork.summary(pipe).adaptor_steps == 2


def test_a_copied_unet_in_another_pipeline(clocked: Tensor) -> None:
    pipe, _ = fresh()
    other, _ = make()
    other.unet = copy.deepcopy(pipe.unet)
    full = generate(other)
    assert set(reasons(other)) == {UNKNOWN_POSITION}
    clockwork.enable(other)
    assert torch.equal(generate(other), clocked)
    clockwork.disable(other)
    assert torch.equal(generate(other), full)


OFFLOADING: dict[str, Callable[[Any], Any]] = {  # what diffusers calls, with the CPU in the accelerator's place
    "model": lambda unet: accelerate.cpu_offload_with_hook(unet, torch.device("cpu")),
    "sequential": lambda unet: accelerate.cpu_offload(unet, torch.device("cpu"), offload_buffers=True),
}


@pytest.mark.parametrize("kind", ["model", pytest.param("sequential", marks=pytest.mark.slow)])
@pytest.mark.parametrize("first", ["Clockwork", "offloading"])
def test_offloading(kind: str, first: str, plain: Tensor, clocked: Tensor) -> None:
    """In both orders, several calls, off and on."""
    pipe, _ = make()
    if first == "Clockwork":
        clockwork.enable(pipe)
        OFFLOADING[kind](pipe.unet)
    else:
        OFFLOADING[kind](pipe.unet)
        clockwork.enable(pipe)
    hook, moved = pipe.unet._hf_hook, []
    before = hook.pre_forward
    hook.pre_forward = lambda *args, **kwargs: moved.append(1) or before(*args, **kwargs)
    assert torch.equal(generate(pipe), clocked)
    assert len(moved) == 4  # adaptor steps too have the weights brought
    assert torch.equal(generate(pipe), clocked) and not reasons(pipe)
    assert clockwork.summary(pipe).flops.full > 0
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe), plain)
    accelerate.hooks.remove_hook_from_module(pipe.unet, recurse=True)
    assert torch.equal(generate(pipe), plain)


@pytest.mark.parametrize("first", ["Clockwork", "offloading"])
def test_group_offloading(first: str, clocked: Tensor) -> None:
    """Leaf by leaf; block by block is refused, as a chain passes blocks by."""
    pipe, _ = make()
    if first == "Clockwork":
        clockwork.enable(pipe)
    pipe.unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    clockwork.enable(pipe)
    assert torch.equal(generate(pipe), clocked)
    pipe, _ = make()
    if first == "Clockwork":
        clockwork.enable(pipe)
    pipe.unet.enable_group_offload(torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1)
    with pytest.raises(ValueError, match="leaf_level"):
        clockwork.enable(pipe) if first == "offloading" else generate(pipe)


def test_to(clocked: Tensor) -> None:
    pipe, _ = fresh()
    generate(pipe)
    other, _ = make()
    other.to(torch.float64)
    clockwork.enable(other)
    assert torch.equal(generate(pipe.to(torch.float64)), generate(other))
    assert not reasons(pipe)
    pipe.to("cpu", torch.float32)
    assert torch.equal(generate(pipe), clocked)


@pytest.fixture
def backend() -> Any:
    """Runs what it is given as it is, and counts."""
    made: list[int] = []

    def run(graph: torch.fx.GraphModule, _: Any) -> Any:
        made.append(len(graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    yield run, made
    torch._dynamo.reset()


def test_compiled_blocks(backend: Any, plain: Tensor, clocked: Tensor) -> None:
    """Of both kinds of step; nothing is compiled again."""
    run, made = backend
    pipe, _ = make()
    pipe.unet.compile_repeated_blocks(backend=run)
    clockwork.enable(pipe)
    assert torch.equal(generate(pipe), clocked)
    assert made
    del made[:]
    assert torch.equal(generate(pipe), clocked) and not made
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe), plain)


@pytest.mark.parametrize("how", ["torch.compile", "unet.compile"])
def test_compiled_as_a_whole_while_enabled(how: str, backend: Any, clocked: Tensor) -> None:
    """Correct, but not compiled."""
    pipe, _ = fresh()
    if how == "torch.compile":
        pipe.unet = torch.compile(pipe.unet, backend=backend[0])
    else:
        pipe.unet.compile(backend=backend[0])
    assert torch.equal(generate(pipe), clocked)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    assert torch.equal(generate(pipe), clocked)


def test_one_graph_of_the_whole_unet_is_refused(backend: Any) -> None:
    pipe, _ = fresh()
    pipe.unet = torch.compile(pipe.unet, backend=backend[0], fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="compile the UNet before"):
        generate(pipe)


@pytest.mark.full
def test_enabling_on_a_compiled_unet_that_was_called(backend: Any, plain: Tensor, clocked: Tensor) -> None:
    """What was compiled without the hook is not run with it."""
    pipe, _ = make("StableDiffusionPipeline")
    pipe.unet = torch.compile(pipe.unet, backend=backend[0])
    with torch._dynamo.config.patch(recompile_limit=8):
        text = torch.zeros(1, 4, 16)
        with torch.no_grad():
            before = pipe.unet(torch.ones(1, 4, 16, 16), 3, text, return_dict=False)[0]
            clockwork.enable(pipe)
            after = pipe.unet(torch.ones(1, 4, 16, 16), 3, text, return_dict=False)[0]
    assert torch.equal(before, after)
    assert reasons(pipe) == [UNKNOWN_POSITION]
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe), plain)
