"""Pipelines that other code has changed: refused when enabled and at an image's first step, or run as they are."""

import copy
import functools
import time
import types
from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from diffusers import UNet2DConditionModel
from diffusers.models.unets import unet_2d_blocks
from helpers.pipelines import fresh, generate, make
from torch import nn

import clockwork
from clockwork.pipeline.enable import enabled_hook
from clockwork.teachers import Teacher


def _doubled(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Other code around a forward, which changes the image if it runs."""

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        return 2 * output if torch.is_tensor(output) else output

    return run


def _own_forward(module: nn.Module) -> None:
    module.forward = _doubled(module.forward)


def _own_method(module: nn.Module) -> None:
    forward = type(module).forward
    module.forward = types.MethodType(lambda self, *args, **kwargs: forward(self, *args, **kwargs), module)


def _another_module_s_forward(module: nn.Module) -> None:
    module.forward = copy.deepcopy(module).forward


def _own_forward_beneath_offloading(module: nn.Module) -> None:
    _own_forward(module)
    add_hook_to_module(module, ModelHook())


def _own_forward_above_offloading(module: nn.Module) -> None:
    add_hook_to_module(module, ModelHook())
    _own_forward(module)


def _subclass(module: nn.Module) -> None:
    """As HiDiffusion and ToMe exchange classes, here under the same name."""
    cls = type(module)
    module.__class__ = type(cls.__name__, (cls,), {"forward": _doubled(cls.forward)})


def _forward_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, inputs, output: output)


def _pre_hook(module: nn.Module) -> None:
    module.register_forward_pre_hook(lambda _, inputs: None)


def _deepcache(pipe: Any) -> None:
    helper = pytest.importorskip("DeepCache").DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=2, cache_branch_id=0)
    helper.enable()


def _other_block(pipe: Any) -> None:
    class CrossAttnDownBlock2D(nn.Module):
        resnets = attentions = downsamplers = ()

    pipe.unet.down_blocks[0] = CrossAttnDownBlock2D()


def _up_block_among_down_blocks(pipe: Any) -> None:
    pipe.unet.down_blocks[0] = pipe.unet.up_blocks[0]


def _too_few_attentions(pipe: Any) -> None:
    pipe.unet.down_blocks[0].attentions = nn.ModuleList([*pipe.unet.down_blocks[0].attentions] * 3)


def _other_middle(pipe: Any) -> None:
    pipe.unet.mid_block = nn.Identity()


BLOCKS: dict[str, Callable[[Any], nn.Module]] = {
    "down": lambda pipe: pipe.unet.down_blocks[0],
    "up": lambda pipe: pipe.unet.up_blocks[-1],
}
CHANGES: dict[str, Callable[[nn.Module], None]] = {
    "forward hook": _forward_hook,
    "pre-forward hook": _pre_hook,
    "own forward": _own_forward,
    "own method": _own_method,
    "another module's forward": _another_module_s_forward,
    "own forward beneath offloading": _own_forward_beneath_offloading,
    "own forward above offloading": _own_forward_above_offloading,
    "class of the same name": _subclass,
}
REFUSED: dict[str, Callable[[Any], None]] = {
    **{
        f"{change} on {block}": lambda pipe, change=change, block=block: CHANGES[change](BLOCKS[block](pipe))
        for change in CHANGES
        for block in BLOCKS
    },
    "DeepCache": _deepcache,
    "block of the same name": _other_block,
    "up block among down blocks": _up_block_among_down_blocks,
    "attentions without resnets": _too_few_attentions,
    "other middle block": _other_middle,
    "other class of UNet": lambda pipe: _subclass(pipe.unet),
}
LAYERS: dict[str, Callable[[Any], None]] = {  # run as they are, because the layers themselves are called
    "hook on a resnet": lambda pipe: _double_by_hook(pipe.unet.down_blocks[0].resnets[0]),
    "own forward of a resnet": lambda pipe: _own_forward(pipe.unet.up_blocks[-1].resnets[0]),
    "class of an upsampler": lambda pipe: _subclass(pipe.unet.up_blocks[0].upsamplers[0]),
    "class of the middle block": lambda pipe: _subclass(pipe.unet.mid_block),
    "own forward of the middle block": lambda pipe: _own_forward(pipe.unet.mid_block),
    "own forward of conv_out": lambda pipe: _own_forward(pipe.unet.conv_out),
    "hook on the UNet": lambda pipe: pipe.unet.register_forward_pre_hook(
        lambda _, inputs: (2 * inputs[0], *inputs[1:])
    ),
    "exchanged resnet": lambda pipe: _exchange(pipe.unet.down_blocks[0], "resnets"),
    "exchanged block": lambda pipe: pipe.unet.up_blocks.__setitem__(-1, _perturbed(pipe.unet.up_blocks[-1])),
}
EXCHANGED: dict[str, Callable[[Any], None]] = {
    "resnet": lambda pipe: _exchange(pipe.unet.down_blocks[0], "resnets"),
    "attention": lambda pipe: _exchange(pipe.unet.down_blocks[0], "attentions"),
    "downsampler": lambda pipe: _exchange(pipe.unet.down_blocks[0], "downsamplers"),
    "no upsampler": lambda pipe: setattr(pipe.unet.up_blocks[0], "upsamplers", None),
    "down block": lambda pipe: pipe.unet.down_blocks.__setitem__(0, copy.deepcopy(pipe.unet.down_blocks[0])),
    "middle block": lambda pipe: setattr(pipe.unet, "mid_block", copy.deepcopy(pipe.unet.mid_block)),
}


def _double_by_hook(module: nn.Module) -> None:
    module.register_forward_hook(lambda _, inputs, output: 2 * output)


def _perturbed(module: nn.Module) -> nn.Module:
    other = copy.deepcopy(module)
    for weight in other.parameters():
        weight.mul_(1.5)
    return other


def _exchange(block: Any, layers: str) -> None:
    getattr(block, layers)[0] = _perturbed(getattr(block, layers)[0])


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_what_would_not_run_is_refused(change: Callable[[Any], None]) -> None:
    pipe, _ = make()
    change(pipe)
    with pytest.raises(clockwork.UserError):
        clockwork.enable(pipe)
    with pytest.raises(clockwork.UserError):
        clockwork.calibrate(pipe, ["a circle"] * 4, num_inference_steps=2)
    with pytest.raises(clockwork.UserError):
        Teacher("changed", pipe)
    pipe, _ = fresh()
    change(pipe)
    with pytest.raises(clockwork.UserError):
        generate(pipe)


@pytest.mark.parametrize("change", [_own_forward, _own_method, _own_forward_beneath_offloading])
def test_a_forward_of_the_unet_that_would_not_run_is_refused(change: Callable[[nn.Module], None]) -> None:
    pipe, _ = make()
    change(pipe.unet)
    for use in (clockwork.enable, clockwork.SplitUNet, lambda pipe: Teacher("changed", pipe)):
        with pytest.raises(clockwork.UserError, match="was replaced"):
            use(pipe.unet if use is clockwork.SplitUNet else pipe)


def test_a_forward_around_clockwork_runs() -> None:
    pipe, _ = fresh()
    calls, forward = [], pipe.unet.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return forward(*args, **kwargs)

    pipe.unet.forward = counted
    assert torch.equal(generate(pipe), generate(fresh()[0])) and len(calls) == 4


@pytest.mark.parametrize("change", LAYERS.values(), ids=LAYERS)
def test_what_is_called_runs_as_it_is(change: Callable[[Any], None]) -> None:
    """With the schedule `full`, the images are those of the changed pipeline without Clockwork."""
    pipe, _ = make()
    unchanged = generate(pipe, steps=2)
    change(pipe)
    changed = generate(pipe, steps=2)
    assert not torch.equal(changed, unchanged)
    clockwork.enable(pipe, schedule="full")
    assert torch.equal(generate(pipe, steps=2), changed)


@pytest.mark.parametrize("change", EXCHANGED.values(), ids=EXCHANGED)
def test_layers_exchanged_afterwards_are_noticed(change: Callable[[Any], None]) -> None:
    pipe, _ = fresh()
    generate(pipe, steps=2)
    change(pipe)
    with pytest.raises(clockwork.UserError, match="exchanged"):
        generate(pipe, steps=2)


@pytest.mark.parametrize("cls", [UNet2DConditionModel, unet_2d_blocks.UpBlock2D])
def test_a_class_of_diffusers_that_was_changed(cls: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    """As tools do that replace a method of diffusers' class for all models."""
    monkeypatch.setattr(cls, "forward", _doubled(cls.forward))
    with pytest.raises(clockwork.UserError, match=cls.__name__):
        clockwork.enable(make()[0])


def test_numbers_as_schedule_and_cut() -> None:
    for schedule, text in ((4, "clock4"), ([2, 4], "2,4")):
        pipe, _ = make()
        clockwork.enable(pipe, schedule=schedule, cut=(2, 3))
        denoiser = enabled_hook(pipe).denoiser
        assert (str(denoiser.schedule), str(denoiser.split.cut)) == (text, "2,3")
    with pytest.raises(clockwork.UserError, match="schedule"):
        clockwork.enable(pipe, schedule=0)


def test_the_check_costs_less_than_a_millisecond_per_image() -> None:
    split = clockwork.SplitUNet(make()[0].unet)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        split.chain.refuse_exchanged_layers(split.unet)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 1e-3
