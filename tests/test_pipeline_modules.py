"""What else is done to a pipeline while Clockwork is enabled: copies, saving, moving, offloading, compiling."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from pipelines import make, paint, picture, solver
from test_pipeline import counts
from test_pipeline_state import fresh, reasons, steps
from torch import Tensor

import clockwork
from clockwork.pipeline.enable import enabled
from clockwork.pipeline.run import UNKNOWN


@pytest.fixture(scope="module")
def plain() -> Tensor:
    return paint(make()[0])


@pytest.fixture(scope="module")
def clocked() -> Tensor:
    return paint(fresh()[0])


def test_save_pretrained(plain: Tensor, tmp_path: Path) -> None:
    pipe, _ = fresh()
    paint(pipe)
    pipe.save_pretrained(tmp_path)
    again = StableDiffusionPipeline.from_pretrained(tmp_path, safety_checker=None)
    again.set_progress_bar_config(disable=True)
    ours, theirs = make()[0].unet.state_dict(), again.unet.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(paint(again), plain)  # saved as it is without Clockwork


def test_from_pipe(plain: Tensor) -> None:
    """A pipeline made of another has its UNet, and its clock as long as it has its solver."""
    pipe, _ = fresh()
    changed = {"image": picture(3), "strength": 0.75}
    other = StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    with_it = paint(other, **changed)
    assert counts(pipe) == (2, 1)
    alone, _ = fresh("StableDiffusionImg2ImgPipeline")
    assert torch.equal(paint(alone, **changed), with_it)
    other.scheduler = solver(type(pipe.scheduler))
    full = paint(other, **changed)  # of this solver nothing is known
    assert reasons(pipe) == [UNKNOWN] * 3
    clockwork.disable(other)
    assert torch.equal(paint(other, **changed), full)
    assert torch.equal(paint(pipe), plain)
    clockwork.enable(other)
    assert torch.equal(paint(other, **changed), with_it)


def test_a_copy_is_clocked_by_itself(plain: Tensor, clocked: Tensor) -> None:
    pipe, _ = fresh()
    paint(pipe, seed=5)
    twin = copy.deepcopy(pipe)
    for weight in pipe.unet.parameters():
        weight.zero_()
    assert torch.equal(paint(twin), clocked)
    assert steps(twin) == "FaFa" and not reasons(twin)
    assert enabled(twin).clocked.split.unet is twin.unet and enabled(twin).pipe is twin
    clockwork.disable(twin)
    assert torch.equal(paint(twin), plain)
    assert clockwork.summary(pipe).adaptor_steps == 2


def test_a_copied_unet_in_another_pipeline(clocked: Tensor) -> None:
    pipe, _ = fresh()
    other, _ = make()
    other.unet = copy.deepcopy(pipe.unet)
    full = paint(other)
    assert set(reasons(other)) == {UNKNOWN}
    clockwork.enable(other)
    assert torch.equal(paint(other), clocked)
    clockwork.disable(other)
    assert torch.equal(paint(other), full)


OFFLOADING: dict[str, Callable[[Any], None]] = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device="cpu"),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(device="cpu"),
}


@pytest.mark.parametrize("kind", OFFLOADING)
@pytest.mark.parametrize("first", ["Clockwork", "offloading"])
def test_offloading(kind: str, first: str, plain: Tensor, clocked: Tensor) -> None:
    """accelerate's hooks with the CPU in the accelerator's place: in both orders, several calls, off and on."""
    pipe, _ = make()
    if first == "Clockwork":
        clockwork.enable(pipe)
    OFFLOADING[kind](pipe)
    clockwork.enable(pipe)
    moved = []
    before = pipe.unet._hf_hook.pre_forward
    pipe.unet._hf_hook.pre_forward = lambda *args, **kwargs: moved.append(1) or before(*args, **kwargs)
    assert torch.equal(paint(pipe), clocked)
    assert len(moved) == 4  # adaptor steps too bring the weights to their place
    assert torch.equal(paint(pipe), clocked) and not reasons(pipe)
    assert clockwork.summary(pipe).flops.full > 0
    clockwork.disable(pipe)
    assert torch.equal(paint(pipe), plain)
    pipe.remove_all_hooks()
    assert torch.equal(paint(pipe), plain)


def test_group_offloading_comes_after(clocked: Tensor) -> None:
    pipe, _ = make()
    pipe.unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    with pytest.raises(ValueError, match="enable Clockwork first"):
        clockwork.enable(pipe)
    pipe, _ = fresh()
    pipe.unet.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")
    assert torch.equal(paint(pipe), clocked)


def test_to(clocked: Tensor) -> None:
    pipe, _ = fresh()
    pipe.to(torch.float64)
    assert torch.allclose(paint(pipe).float(), clocked, atol=1e-2)
    assert not reasons(pipe)
    pipe.to("cpu", torch.float32)
    assert torch.equal(paint(pipe), clocked)


@pytest.fixture
def graphs() -> Any:
    """A backend that runs what it is given as it is, and counts."""
    made: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        made.append(sum(node.op != "placeholder" for node in graph.graph.nodes))
        return graph.forward

    torch._dynamo.reset()
    yield backend, made
    torch._dynamo.reset()


@pytest.mark.parametrize("how", ["torch.compile", "unet.compile"])
@pytest.mark.parametrize("first", ["Clockwork", "compiled", "compiled and called"])
def test_compiling(how: str, first: str, graphs: Any, plain: Tensor, clocked: Tensor) -> None:
    """Two kinds of step are two sets of graphs; the choice between them stays outside, and nothing compiles again."""
    backend, made = graphs
    pipe, _ = make()
    if first == "Clockwork":
        clockwork.enable(pipe)
    if how == "torch.compile":
        pipe.unet = torch.compile(pipe.unet, backend=backend)
    else:
        pipe.unet.compile(backend=backend)
    if first == "compiled and called":
        assert torch.equal(paint(pipe), plain)
        assert made
    clockwork.enable(pipe)
    del made[:]
    assert torch.equal(paint(pipe), clocked)
    assert steps(pipe) == "FaFa" and not reasons(pipe)
    assert sum(made) > 100  # the layers are in graphs
    del made[:]
    assert torch.equal(paint(pipe), clocked)
    assert not made
    clockwork.disable(pipe)
    assert torch.equal(paint(pipe), plain)


def test_compiling_into_one_graph_is_refused(graphs: Any) -> None:
    pipe, _ = fresh()
    pipe.unet = torch.compile(pipe.unet, backend=graphs[0], fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported, match="compile without fullgraph"):
        paint(pipe)
