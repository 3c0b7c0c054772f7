"""`enable`, `disable`: Clockwork on and off on a diffusers pipeline."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from diffusers import UNet2DConditionModel
from diffusers.utils.torch_utils import is_compiled_module
from torch import nn

from clockwork.adaptors import Adaptor, FeatureDims, Identity, check_teacher, fetch, load_adaptor, read_config
from clockwork.errors import UserError
from clockwork.io.fingerprint import weights_hash
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.adaptor_copy import frozen_copy
from clockwork.pipeline.attach import attach, detach, other_hooks, refuse_hooks_on_blocks
from clockwork.pipeline.hook import ClockHook, get_hook
from clockwork.pipeline.prompt_lookup import PromptHook
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.schedule import Schedule
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet


def enable(
    pipe: Any,
    schedule: str | Schedule | None = None,
    adaptor: str | Path | Adaptor | None = None,
    cut: str | Cut | None = None,
    force: bool = False,
) -> None:
    """Runs the pipeline's UNet in full only on the schedule's steps, and with the adaptor on the others.

    Enabling again replaces; every other pipeline with this UNet is clocked with it.

    Args:
        pipe: A diffusers pipeline around a UNet2DConditionModel, in any precision, on any device.
        schedule: Which steps are full; by default a trained adaptor's own, else `clock2`.
        adaptor: A folder, a name on the hub, or a module, which is copied and stays as it is; without one the identity,
            which needs no training. It runs on the UNet's device and in its precision.
        cut: Where the UNet is split; by default a trained adaptor's own, else `stage1`.
        force: Whether to take an adaptor that was trained for another teacher.

    Raises:
        UserError: The UNet cannot be split, the cut does not fit it, or the adaptor is another teacher's.
    """
    unet = get_unet(pipe)
    config: dict[str, Any] = {}
    trained: OperatingPoint | None = None
    if isinstance(adaptor, (str, Path)):
        folder = fetch(adaptor)
        config, (adaptor, trained) = read_config(folder), load_adaptor(folder)
    split = SplitUNet(unet, cut or (trained.cut if trained else "stage1"))
    clock = Schedule.parse(schedule or (trained.schedule if trained else "clock2"))
    adaptor = Identity(FeatureDims(0, 0, 0, 0)) if adaptor is None else frozen_copy(adaptor)
    clocked = ClockworkDenoiser(split, adaptor, clock)
    teacher = (_name(pipe), "")
    if trained is not None:
        teacher = _teacher(teacher[0], unet, trained)
        _check(trained, teacher, str(split.cut), force)
    prompts = _prompts(pipe, config) if "text_emb" in adaptor.inputs else None
    _look_at_hooks(unet, unet is not pipe.unet or unet._compiled_call_impl is not None)
    disable(pipe)
    _attach(ClockHook(pipe, clocked, teacher, trained, prompts))


def disable(pipe: Any) -> None:
    """The pipeline as it was, bit for bit; nothing to do where Clockwork is not enabled."""
    unet, encoder = get_unet(pipe), _text_encoder(pipe)[0]
    hook = get_hook(unet)
    detach(unet)
    if hook is not None and hook.prompts is not None and encoder is not None:
        detach(encoder, hook.prompts.name)


@contextmanager
def disabled(pipe: Any) -> Iterator[None]:
    """For a while, then as before."""
    hook = enabled(pipe)
    disable(pipe)
    try:
        yield
    finally:
        _attach(hook)


def _attach(hook: ClockHook) -> None:
    attach(get_unet(hook.pipe), hook)
    encoder = _text_encoder(hook.pipe)[0]
    if hook.prompts is not None and encoder is not None:
        attach(encoder, hook.prompts, hook.prompts.name)


def enabled(pipe: Any) -> ClockHook:
    hook = get_hook(get_unet(pipe))
    if hook is None:
        raise UserError("Clockwork is not enabled on this pipeline: call clockwork.enable(pipe) first")
    return hook


def get_unet(pipe: Any) -> UNet2DConditionModel:
    """The pipeline's UNet, itself where it was compiled."""
    unet = _unwrap_compiled(getattr(pipe, "unet", None))
    if unet is None:
        raise UserError(f"{type(pipe).__name__} has no UNet: Clockwork is for pipelines around a UNet2DConditionModel")
    if type(unet).forward is not UNet2DConditionModel.forward:
        raise UserError(
            f"cannot clock the {type(unet).__name__} of {type(pipe).__name__}: its blocks are not known, "
            "only those of a UNet2DConditionModel"
        )
    return cast(UNet2DConditionModel, unet)


def _unwrap_compiled(module: Any) -> Any:
    return module._orig_mod if is_compiled_module(module) else module


def _text_encoder(pipe: Any) -> tuple[nn.Module | None, Any]:
    """The first text encoder and its tokenizer: SDXL's refiner has only the second."""
    for number in ("", "_2"):
        encoder = _unwrap_compiled(getattr(pipe, f"text_encoder{number}", None))
        if encoder is not None:
            return encoder, getattr(pipe, f"tokenizer{number}")
    return None, None


def _name(pipe: Any) -> str:
    """On the hub, or of its folder; a folder's path is nobody's business."""
    source = str(getattr(pipe, "name_or_path", ""))
    return (Path(source).name if Path(source).is_dir() else source) or type(pipe).__name__


def _teacher(name: str, unet: UNet2DConditionModel, trained: OperatingPoint) -> tuple[str, str]:
    if any(weight.is_meta for weight in unet.parameters()):
        raise UserError(
            "the UNet's weights are offloaded, and a trained adaptor is checked against them: "
            "enable Clockwork before enable_sequential_cpu_offload"
        )
    found = weights_hash(unet)
    return trained.teacher if found == trained.teacher_hash else name, found


def _check(trained: OperatingPoint, teacher: tuple[str, str], cut: str, force: bool) -> None:
    try:
        check_teacher(trained, teacher[0], trained.teacher_hash if force else teacher[1], cut)
    except ValueError as error:
        forced = "; force=True takes it all the same" if cut == trained.cut else ""
        raise UserError(f"{error}{forced}") from None


def _prompts(pipe: Any, config: dict[str, Any]) -> PromptHook:
    if config.get("openclip") is None:
        raise UserError(
            "this adaptor reads text, and nothing says which OpenCLIP model's: give its folder, whose config.json "
            "names it, or train one without text_emb"
        )
    return PromptHook(_text_encoder(pipe)[1], OpenCLIP.from_config(config["openclip"]))


def _look_at_hooks(unet: UNet2DConditionModel, compiled: bool) -> None:
    refuse_hooks_on_blocks(unet)
    if names := other_hooks(unet):
        raise UserError(
            f"the UNet has the hook {', '.join(names)} of diffusers already, and Clockwork's has to be nearer to it: "
            "enable Clockwork first"
        )
    if compiled:
        warnings.warn(
            "the UNet is compiled as a whole, and Clockwork runs it in parts and uncompiled: compile its blocks "
            "instead, with pipe.unet.compile_repeated_blocks()",
            stacklevel=3,
        )
