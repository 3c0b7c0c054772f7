"""`enable` and `disable`: Clockwork on a diffusers pipeline."""

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
    """Runs the pipeline's full UNet only on the schedule's full steps, and the adaptor on the others.

    The UNet's `forward` is replaced, so this also affects other pipelines that share the UNet. If Clockwork is already
    enabled, the new settings replace the old ones.

    Args:
        pipe: A diffusers pipeline with a `UNet2DConditionModel`, in any precision, on any device.
        schedule: Which steps are full; by default the one that a trained adaptor was trained for, else `clock2`.
        adaptor: An adaptor's folder, its name on the hub, or a module, which is copied. The default is the identity
            adaptor, which needs no training. The adaptor runs on the UNet's device and in its precision.
        cut: Where the UNet is split; by default as a trained adaptor was trained for, else `stage1`.
        force: Whether to accept an adaptor that was trained for another teacher.

    Raises:
        UserError: If the UNet cannot be split, the cut does not fit it, the adaptor was trained for another teacher, or
            another hook on the UNet or one of its blocks prevents Clockwork from running.
    """
    unet = get_unet(pipe)
    module, trained, config = _load(adaptor)
    split = SplitUNet(unet, cut or (trained.cut if trained else "stage1"))
    clock = Schedule.parse(schedule or (trained.schedule if trained else "clock2"))
    module = Identity(FeatureDims(0, 0, 0, 0)) if module is None else frozen_copy(module)
    denoiser = ClockworkDenoiser(split, module, clock)
    teacher = (_pipeline_name(pipe), "")
    if trained is not None:
        teacher = _name_and_hash(teacher[0], unet, trained)
        _check_teacher(trained, teacher, str(split.cut), force)
    prompts = _prompt_hook(pipe, config) if "text_emb" in module.inputs else None
    _check_hooks(unet, is_compiled=unet is not pipe.unet or unet._compiled_call_impl is not None)
    disable(pipe)
    _attach(ClockHook(pipe, denoiser, teacher, trained, prompts))


def _load(
    adaptor: str | Path | Adaptor | None,
) -> tuple[Adaptor | None, OperatingPoint | None, dict[str, Any]]:
    """Loads an adaptor with its operating point and its config; a module or None is returned without these."""
    if not isinstance(adaptor, (str, Path)):
        return adaptor, None, {}
    folder = fetch(adaptor)
    return *load_adaptor(folder), read_config(folder)


def disable(pipe: Any) -> None:
    """Removes Clockwork from a pipeline, which then gives the same images as before `enable`, bit for bit.

    Does nothing if Clockwork is not enabled.

    Args:
        pipe: A diffusers pipeline with a `UNet2DConditionModel`.

    Raises:
        UserError: If the pipeline has no such UNet.
    """
    unet, encoder = get_unet(pipe), _text_encoder(pipe)[0]
    hook = get_hook(unet)
    detach(unet)
    if hook is not None and hook.prompts is not None and encoder is not None:
        detach(encoder, hook.prompts.name)


@contextmanager
def disabled(pipe: Any) -> Iterator[None]:
    """Disables Clockwork for the duration of the context.

    Args:
        pipe: A pipeline with Clockwork enabled.

    Raises:
        UserError: If Clockwork is not enabled on the pipeline.
    """
    hook = enabled_hook(pipe)
    disable(pipe)
    try:
        yield
    finally:
        _attach(hook)


def _attach(hook: ClockHook) -> None:
    """Attaches Clockwork's hook to the UNet, and its prompt hook to the text encoder."""
    attach(get_unet(hook.pipe), hook)
    encoder = _text_encoder(hook.pipe)[0]
    if hook.prompts is not None and encoder is not None:
        attach(encoder, hook.prompts, hook.prompts.name)


def enabled_hook(pipe: Any) -> ClockHook:
    """Returns the hook that `enable` attached to the pipeline's UNet.

    Args:
        pipe: A diffusers pipeline with a `UNet2DConditionModel`.

    Raises:
        UserError: If Clockwork is not enabled on the pipeline.
    """
    hook = get_hook(get_unet(pipe))
    if hook is None:
        raise UserError("Clockwork is not enabled on this pipeline: call clockwork.enable(pipe) first")
    return hook


def get_unet(pipe: Any) -> UNet2DConditionModel:
    """Returns the pipeline's UNet, unwrapped if it was compiled with `torch.compile`.

    Args:
        pipe: A diffusers pipeline.

    Raises:
        UserError: If the pipeline has no UNet, or one of another class.
    """
    unet = _unwrap_compiled(getattr(pipe, "unet", None))
    if unet is None:
        raise UserError(f"{type(pipe).__name__} has no UNet: use a pipeline with a UNet2DConditionModel")
    if type(unet).forward is not UNet2DConditionModel.forward:
        raise UserError(
            f"the {type(unet).__name__} of {type(pipe).__name__} is not supported: "
            "use a pipeline with a UNet2DConditionModel"
        )
    return cast(UNet2DConditionModel, unet)


def _unwrap_compiled(module: Any) -> Any:
    """Returns the module that `torch.compile` wrapped, or the module itself."""
    return module._orig_mod if is_compiled_module(module) else module


def _text_encoder(pipe: Any) -> tuple[nn.Module | None, Any]:
    """Returns the pipeline's first text encoder and its tokenizer. SDXL's refiner has only `text_encoder_2`."""
    for suffix in ("", "_2"):
        encoder = _unwrap_compiled(getattr(pipe, f"text_encoder{suffix}", None))
        if encoder is not None:
            return encoder, getattr(pipe, f"tokenizer{suffix}")
    return None, None


def _pipeline_name(pipe: Any) -> str:
    """Returns the pipeline's name on the hub, or its folder's name without the path, which may be private."""
    source = str(getattr(pipe, "name_or_path", ""))
    return (Path(source).name if Path(source).is_dir() else source) or type(pipe).__name__


def _name_and_hash(name: str, unet: UNet2DConditionModel, trained: OperatingPoint) -> tuple[str, str]:
    """Returns the name and the weights' fingerprint of the UNet; the adaptor's teacher's name if it is that one."""
    if any(weight.is_meta for weight in unet.parameters()):
        raise UserError(
            "the UNet's weights are offloaded, so a trained adaptor cannot be checked against them: "
            "enable Clockwork before enable_sequential_cpu_offload"
        )
    unet_hash = weights_hash(unet)
    return trained.teacher if unet_hash == trained.teacher_hash else name, unet_hash


def _check_teacher(trained: OperatingPoint, teacher: tuple[str, str], cut: str, force: bool) -> None:
    """Refuses an adaptor of another cut, and one of another teacher unless forced."""
    try:
        check_teacher(trained, teacher[0], trained.teacher_hash if force else teacher[1], cut)
    except ValueError as error:
        hint = "; force=True accepts it anyway" if cut == trained.cut else ""
        raise UserError(f"{error}{hint}") from None


def _prompt_hook(pipe: Any, config: dict[str, Any]) -> PromptHook:
    """Creates the hook that looks up prompts for an adaptor that reads text; `config` is the adaptor's."""
    if config.get("openclip") is None:
        raise UserError(
            "this adaptor reads text, and it is not known which OpenCLIP model embeds it: pass the adaptor's folder, "
            "whose config.json names the model, or train an adaptor without text_emb"
        )
    return PromptHook(_text_encoder(pipe)[1], OpenCLIP.from_config(config["openclip"]))


def _check_hooks(unet: UNet2DConditionModel, is_compiled: bool) -> None:
    """Refuses other diffusers hooks on the UNet and its blocks, and warns if the whole UNet is compiled."""
    refuse_hooks_on_blocks(unet)
    if names := other_hooks(unet):
        raise UserError(
            f"the UNet already has the diffusers hook {', '.join(names)}, which must run outside Clockwork's: "
            "remove it, enable Clockwork, then add it again"
        )
    if is_compiled:
        warnings.warn(
            "the whole UNet is compiled, but Clockwork runs it in parts and uncompiled: compile its blocks instead, "
            "with pipe.unet.compile_repeated_blocks()",
            stacklevel=3,
        )
