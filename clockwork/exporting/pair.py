"""`export`: an enabled pipeline as two graphs and an operating point."""

import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from clockwork.adaptors import Adaptor, FullStep, adaptor_hash, mismatch_message, require_both_halves
from clockwork.errors import UserError, check_number, check_whole
from clockwork.exporting import runner
from clockwork.exporting.formats import FIXED_SIZE, SAVE, check_format
from clockwork.exporting.graphs import (
    MAX_IMAGES,
    MAX_SIDE,
    AdaptorGraph,
    FullGraph,
    GraphInputs,
    adaptor_inputs,
    export_graph,
    full_inputs,
    num_full_steps,
    side_multiple,
)
from clockwork.exporting.solver_table import solver_table
from clockwork.io.atomic import atomic_folder, check_folder
from clockwork.io.paths import can_be_folder
from clockwork.operating_point import OperatingPoint
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.hook import ClockHook
from clockwork.pipeline.parts import get_unet, text_encoder, unet_fingerprint
from clockwork.sampling.denoisers import ClockworkDenoiser
from clockwork.sampling.solvers import solver_name, solver_settings
from clockwork.unet.conditioning import HALVES
from clockwork.unet.split import SplitUNet

INTERNAL = ("sample", "timestep", "conditional", "step", "r_in_prev", "r_out_prev")  # which the runner provides


def export(
    pipe: Any,
    folder: str | Path,
    format: str = "onnx",
    *,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
) -> Path:
    """Exports the full step and the adaptor step of an enabled pipeline as two graphs, for devices without diffusers.

    The folder holds `full.onnx` and `adaptor.onnx` with one file of weights for both (in other formats each has its
    own weights), `config.json` with the operating point, the solver's numbers and the range of shapes, and `runner.py`,
    which samples latents with numpy and the format's runtime alone. Text encoder and autoencoder are not exported.
    Batch, height and width are dynamic, except with ExecuTorch (docs/export.md).

    Args:
        pipe: A diffusers pipeline with Clockwork enabled, in float32 on the CPU. Its scheduler has to be DPM++ up to
            order 2 or DDIM.
        folder: The folder to write. One that exists is replaced if it is empty or Clockwork wrote it.
        format: `onnx`, `openvino`, `executorch`, or `pt2` for `torch.export`. Loading a `.pt2` file may unpickle
            objects: load your own only.
        num_inference_steps: Number of solver steps; by default that of the adaptor's operating point.
        guidance_scale: Scale of classifier-free guidance; by default that of the adaptor's operating point.

    Returns:
        The folder.

    Raises:
        UserError: If Clockwork is not enabled, the format is unknown or its package is missing, something else is in
            the folder, or the pipeline's UNet, adaptor or solver cannot be exported.

    Example:
        >>> clockwork.calibrate(pipe, num_inference_steps=8, guidance_scale=7.5)
        >>> clockwork.export(pipe, "lighthouse")
    """
    if not isinstance(folder, (str, Path)) or not can_be_folder(Path(folder)):
        raise UserError(f"{folder!r:.50} is no folder to write to: choose another path")
    hook, folder = enabled_hook(pipe), Path(folder)
    check_target(folder, format)
    steps, guidance = _steps_and_guidance(hook, num_inference_steps, guidance_scale)
    _check_unet(hook.denoiser.split)
    solver = solver_table(pipe.scheduler, steps)
    denoiser = hook.denoiser_for(torch.empty(0))  # with its adaptor on the CPU in float32
    _check_adaptor(denoiser.adaptor)
    full_steps = [denoiser.schedule.is_full(step) for step in range(1, len(solver["timesteps"]) + 1)]
    denoiser.schedule.adaptor_steps(len(full_steps))  # refuses a schedule that is too long
    guided = guidance > 1 and denoiser.split.unet.config.time_cond_proj_dim is None  # as diffusers' pipelines
    inputs = _inputs(denoiser, text_encoder(pipe)[1].model_max_length, guided, format in FIXED_SIZE)
    config = {
        "format": format,
        "operating_point": asdict(_operating_point(pipe, hook, steps, guidance)),
        "adaptor": {"kind": denoiser.adaptor.kind, "hash": adaptor_hash(denoiser.adaptor)},
        "solver": solver,
        "guided": guided,
        "full_steps": full_steps,
        "num_full_steps": num_full_steps(denoiser.adaptor),
        **_shapes(denoiser, inputs),
    }
    _write(folder, config, denoiser, inputs)
    return folder


def check_target(folder: Path, format: str) -> None:
    """Checks what can be checked before a pipeline is loaded.

    Args:
        folder: The folder to write.
        format: The format.

    Raises:
        UserError: If the format is unknown or its package is missing, or something else is in the folder.
    """
    check_format(format)
    check_folder(folder)


def _steps_and_guidance(hook: ClockHook, steps: int | None, guidance: float | None) -> tuple[int, float]:
    """Returns the number of steps and the guidance scale, those of the adaptor by default."""
    trained = hook.trained
    steps = trained.steps if steps is None and trained is not None else steps
    guidance = trained.guidance if guidance is None and trained is not None else guidance
    if steps is None or guidance is None:
        raise UserError(
            "this adaptor has no operating point of its own: pass num_inference_steps and guidance_scale to export"
        )
    return check_whole("num_inference_steps", steps, 1, 1000), check_number("guidance_scale", guidance, 0)


def _check_unet(split: SplitUNet) -> None:
    """Refuses a UNet whose calls the runner cannot make."""
    unet, config = split.unet, split.unet.config
    weight = unet.conv_in.weight
    if not isinstance(unet, UNet2DConditionModel) or unet.class_embedding is not None:
        raise UserError(
            f"a {type(unet).__name__} that reads other inputs than text cannot be exported: use Stable Diffusion's or "
            "SDXL's UNet"
        )
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise UserError(
            f"the UNet is on {weight.device} in {weight.dtype}, but graphs are exported from the CPU in float32: call "
            'pipe.to("cpu", torch.float32) first'
        )
    if config.in_channels != config.out_channels:
        raise UserError("this UNet reads more than latents, such as a mask, which the runner does not have")
    if config.addition_embed_type not in (None, "text_time") or config.encoder_hid_dim_type is not None:
        raise UserError("this UNet reads images as prompts, which the runner does not have: unload IP-Adapter first")


def _check_adaptor(adaptor: Adaptor) -> None:
    """Refuses an adaptor that would need a graph for each number of full steps in its past."""
    require_both_halves(adaptor, "an exported graph")
    if set(adaptor.branches) - set(HALVES):
        raise UserError(
            f"the exported runner guides with two branches, and the adaptor is for {', '.join(adaptor.branches)}: "
            "calibrate a pipeline with two"
        )
    only = (FullStep(1, torch.zeros(1), torch.zeros(1)),)
    if len(adaptor.padded(only)) < num_full_steps(adaptor):
        raise UserError(
            f"the adaptor {adaptor.kind} reads several full steps, and the first adaptor steps have fewer: "
            "use a linear adaptor (clockwork.calibrate) or another one"
        )


def _inputs(denoiser: ClockworkDenoiser, tokens: int, guided: bool, fixed: bool) -> dict[str, GraphInputs]:
    """Creates the example inputs of both graphs."""
    full = full_inputs(denoiser.split, tokens, guided, fixed)
    return {"full": full, "adaptor": adaptor_inputs(denoiser.split, denoiser.adaptor, full, guided)}


def _operating_point(pipe: Any, hook: ClockHook, steps: int, guidance: float) -> OperatingPoint:
    """Describes what is exported. Warns if the adaptor was trained for something else, apart from the resolution."""
    unet, denoiser, trained = get_unet(pipe), hook.denoiser, hook.trained
    side = int(unet.config.sample_size) * int(getattr(pipe, "vae_scale_factor", 1))
    point = OperatingPoint(
        hook.teacher[0],
        unet_fingerprint(unet),
        cut=str(denoiser.split.cut),
        schedule=str(denoiser.schedule),
        solver=solver_name(pipe.scheduler),
        steps=steps,
        guidance=guidance,
        resolution=side if trained is None else trained.resolution,
        width=None if trained is None else trained.width,
        solver_settings=solver_settings(pipe.scheduler),
    )
    if trained is not None and (differences := point.differences(trained)):
        warnings.warn(mismatch_message(differences), stacklevel=3)
    return point


def _shapes(denoiser: ClockworkDenoiser, inputs: Mapping[str, GraphInputs]) -> dict[str, Any]:
    """Describes inputs and shapes, as plain data."""
    multiple = side_multiple(denoiser.split)
    tensors = inputs["adaptor"].tensors
    images, sides = [1, MAX_IMAGES], [2 * multiple, MAX_SIDE // multiple * multiple]
    if not inputs["full"].dims["sample"]:  # of fixed size
        images, sides = [1, 1], [tensors["sample"].shape[-1]] * 2
    given = [name for name in tensors if name not in INTERNAL and not name.startswith("full_")]
    return {
        "inputs": {name: list(graph.tensors) for name, graph in inputs.items()},
        "conditions": {name: list(tensors[name].shape[1:]) for name in given},
        "shapes": {
            "images": images,
            "channels": denoiser.split.unet.config.in_channels,
            "sides": sides,
            "multiple": multiple,
        },
    }


def _write(
    folder: Path, config: dict[str, Any], denoiser: ClockworkDenoiser, inputs: Mapping[str, GraphInputs]
) -> None:
    """Exports the graphs and writes the folder."""
    names = {name: tuple(graph.tensors) for name, graph in inputs.items()}
    graphs = {
        "full": FullGraph(denoiser.split, names["full"]),
        "adaptor": AdaptorGraph(denoiser.split, denoiser.adaptor, names["adaptor"]),
    }
    programs = {name: export_graph(graph, inputs[name]) for name, graph in graphs.items()}
    with atomic_folder(folder) as partial:
        partial.mkdir()
        SAVE[config["format"]](programs, config["inputs"], partial, runner.pair_id(config))
        (partial / runner.CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        shutil.copy(runner.__file__, partial / "runner.py")
