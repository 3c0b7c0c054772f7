"""`enable` and `disable`: Clockwork on a diffusers pipeline."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from diffusers import ModelMixin

from clockwork.adaptors import Adaptor, Identity, check_dims, check_teacher, fetch, load_adaptor, read_config
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.adaptor_copy import frozen_copy
from clockwork.pipeline.attach import attach, detach, other_hooks
from clockwork.pipeline.compiling import WholeUNet, pipeline_functions
from clockwork.pipeline.controlnet import attach_controlnet_hooks, detach_controlnet_hooks
from clockwork.pipeline.hook import ClockHook, get_hook
from clockwork.pipeline.parts import get_unet, pipeline_name, text_encoder, unet_fingerprint
from clockwork.pipeline.prompt_lookup import PromptHook
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.sampling.feature_shapes import pipeline_feature_dims
from clockwork.schedule import Schedule
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.unet.chain import Cut
from clockwork.unet.split import SplitUNet


def enable(
    pipe: Any,
    schedule: str | int | Sequence[int] | Schedule | None = None,
    adaptor: str | Path | Adaptor | None = None,
    cut: str | Sequence[int] | Cut | None = None,
    force: bool = False,
    compile: bool | Mapping[str, Any] | None = None,
) -> None:
    """Runs the pipeline's full UNet only on the schedule's full steps, and the adaptor on the others.

    The UNet's `forward` is replaced, so this also affects other pipelines that share the UNet. If Clockwork is already
    enabled, the new settings replace the old ones.

    Args:
        pipe: A diffusers pipeline with a UNet (docs/compatibility.md), in any precision, on any device.
        schedule: Which steps are full, for example `clock4`, 4 or `[2, 4]` (the adaptor's steps); by default the one
            that a trained adaptor was trained for, else `clock2`.
        adaptor: An adaptor's folder, its name on the hub, or a module, which is copied. The default is the identity
            adaptor, which needs no training; `clockwork.calibrate` fits a nearer one in seconds. The adaptor runs on
            the UNet's device and in its precision.
        cut: Where the UNet is split, for example `stage2` or `(3, 4)`; by default as a trained adaptor was trained
            for, else `stage1`. For the identity adaptor the default is the cheapest cut with the same images as
            `stage1` (`Cut.cheapest_for_identity`).
        force: Whether to accept an adaptor that was trained for another teacher.
        compile: True, or a dict with arguments of `torch.compile`, compiles full steps and adaptor steps,
            each to one graph, when they first run. By default they are compiled if the UNet was compiled as a whole
            before, with its options; False leaves them uncompiled then, too.

    Raises:
        UserError: If the UNet cannot be split, the cut does not fit it, the adaptor was trained for another teacher, is
            for features of other sizes, or reads text and the UNet makes videos, or a hook or other code on the UNet or
            one of its blocks would not run.
    """
    unet = get_unet(pipe)
    module, trained, config = _load(adaptor)
    split = SplitUNet(unet, (trained.cut if trained else "stage1") if cut is None else cut)
    clock = Schedule.parse((trained.schedule if trained else "clock2") if schedule is None else schedule)
    if module is None:
        if split.reads_text:
            _recommend_calibration()
        if cut is None:
            split = SplitUNet(unet, split.cut.cheapest_for_identity(split.chain))
    module = Identity() if module is None else frozen_copy(module)
    if split.kind.frames_axis is not None and "text_emb" in module.inputs:
        raise UserError(
            f"an adaptor that reads the prompt's text is for images, and a {type(unet).__name__} makes videos: "
            "use clockwork.calibrate, whose adaptor reads none"
        )
    denoiser = ClockworkDenoiser(split, module, clock, pipeline_functions(whole_unet(pipe), compile))
    teacher = (pipeline_name(pipe), "")
    if trained is not None:
        teacher = _name_and_hash(teacher[0], unet, trained)
        _check_teacher(trained, teacher, str(split.cut), force)
    prompts = _prompt_hook(pipe, config) if "text_emb" in module.inputs else None
    if module.has_weights:
        dims = pipeline_feature_dims(unet, split.cut, 0 if prompts is None else prompts.openclip.width)
        if dims is not None:  # else the first step checks the channels
            check_dims(module, dims, str(split.cut))
    check_hooks(pipe)
    replace_hook(pipe, ClockHook(pipe, denoiser, teacher, trained, prompts))


@cache
def _recommend_calibration() -> None:
    """Says once per process that there is a nearer adaptor than the identity."""
    logging.getLogger("clockwork").warning(
        "Clockwork runs the identity adaptor: clockwork.calibrate(pipe) fits one in seconds whose images are nearer"
    )


def _load(
    adaptor: str | Path | Adaptor | None,
) -> tuple[Adaptor | None, OperatingPoint | None, dict[str, Any]]:
    """Loads an adaptor with its operating point and its config; a module has no config, and None has neither."""
    if adaptor is not None and not isinstance(getattr(adaptor, "_orig_mod", adaptor), (Adaptor, str, Path)):
        raise UserError(
            f"adaptor is a {type(adaptor).__name__}, which is none: pass its folder, its name on the hub, or an object "
            "such as clockwork.load_adaptor returns"
        )
    if not isinstance(adaptor, (str, Path)):
        return adaptor, getattr(adaptor, "point", None), {}
    folder = fetch(adaptor)
    return *load_adaptor(folder), read_config(folder)


def disable(pipe: Any) -> None:
    """Removes Clockwork from a pipeline, which then gives the same images as before `enable`, bit for bit.

    Does nothing if Clockwork is not enabled.

    Args:
        pipe: A diffusers pipeline with a UNet.

    Raises:
        UserError: If the pipeline has no UNet, or one that is not supported.
    """
    unet, encoder = get_unet(pipe), text_encoder(pipe)[0]
    hook = get_hook(unet)
    detach(unet)
    detach_controlnet_hooks(pipe)
    if hook is not None and hook.whole_unet is not None:
        hook.whole_unet.put_back()
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
        replace_hook(pipe, hook)


def replace_hook(pipe: Any, hook: ClockHook | None) -> None:
    """Attaches Clockwork's hook to the UNet, and its prompt hook to the text encoder, in place of those there are.

    Args:
        pipe: A diffusers pipeline with a UNet.
        hook: The hook; None leaves Clockwork disabled.
    """
    disable(pipe)
    if hook is None:
        return
    hook.whole_unet = WholeUNet(hook.pipe)
    hook.whole_unet.set_aside()
    attach(get_unet(hook.pipe), hook)
    attach_controlnet_hooks(hook.pipe, hook)
    encoder = text_encoder(hook.pipe)[0]
    if hook.prompts is not None and encoder is not None:
        attach(encoder, hook.prompts, hook.prompts.name)


def whole_unet(pipe: Any) -> WholeUNet:
    """Returns the form in which the pipeline's UNet was compiled as a whole, also while Clockwork is enabled.

    Args:
        pipe: A diffusers pipeline with a UNet.
    """
    hook = get_hook(get_unet(pipe))
    return WholeUNet(pipe) if hook is None or hook.whole_unet is None else hook.whole_unet


def enabled_hook(pipe: Any) -> ClockHook:
    """Returns the hook that `enable` attached to the pipeline's UNet.

    Args:
        pipe: A diffusers pipeline with a UNet.

    Raises:
        UserError: If Clockwork is not enabled on the pipeline.
    """
    hook = get_hook(get_unet(pipe))
    if hook is None:
        raise UserError("Clockwork is not enabled on this pipeline: call clockwork.enable(pipe) first")
    return hook


def _name_and_hash(name: str, unet: ModelMixin, trained: OperatingPoint) -> tuple[str, str]:
    """Returns the name and the weights' fingerprint of the UNet; the adaptor's teacher's name if it is that one."""
    unet_hash = unet_fingerprint(unet)
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
    return PromptHook(text_encoder(pipe)[1], OpenCLIP.from_config(config["openclip"]))


def check_hooks(pipe: Any) -> None:
    """Refuses other diffusers hooks on the UNet.

    Args:
        pipe: A diffusers pipeline with a UNet.

    Raises:
        UserError: If the UNet has another hook.
    """
    if names := other_hooks(get_unet(pipe)):
        raise UserError(
            f"the UNet already has the diffusers hook {', '.join(names)}, which must run outside Clockwork's: "
            "remove it, enable Clockwork, then add it again"
        )
