"""Exported graphs for the benchmark: the steps and the roll-out of a sampler in the format's runtime."""

from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from clockwork.errors import import_extra
from clockwork.exporting.pair import export
from clockwork.exporting.runner import STOP_SPINNING, Runner
from clockwork.pipeline.enable import enable
from clockwork.rivals.base import shared_copy
from clockwork.sampling.guidance import cfg_batch
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Condition


def exported_runner(sampler: Sampler, format: str) -> Runner:
    """Exports a sampler's steps and loads them, for as many threads as torch uses.

    Args:
        sampler: The sampler, with an adaptor.
        format: `onnx`, `openvino` or `pt2`.

    Raises:
        UserError: If a package is missing, or the sampler cannot be exported.
    """
    teacher, options = sampler.teacher, dict[str, Any]()
    if format == "onnx":
        session_options = import_extra("onnxruntime", "export").SessionOptions()
        session_options.intra_op_num_threads = torch.get_num_threads()
        session_options.add_session_config_entry(*STOP_SPINNING)
        options = {"sess_options": session_options}
    if format == "openvino":
        threads = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        options = {"config": threads}
    parts = {"tokenizer": teacher.pipe.tokenizer, "text_encoder": teacher.pipe.text_encoder}
    solver = make_solver(sampler.solver, teacher.noise_schedule)
    pipe = SimpleNamespace(unet=shared_copy(teacher.unet), scheduler=solver, **parts)
    enable(pipe, sampler.schedule, sampler.adaptor, sampler.split.cut)
    with TemporaryDirectory() as folder:
        export(pipe, folder, format, num_inference_steps=sampler.steps, guidance_scale=sampler.guidance)
        return Runner(folder, **options)


def latents_of_runner(runner: Runner, sampler: Sampler, captions: list[str], noise: Tensor) -> NDArray[Any]:
    """Samples the latents that `sampler.latents` samples.

    Args:
        runner: An export of the sampler.
        sampler: The sampler, which encodes the prompts.
        captions: The prompts.
        noise: Initial noise, `batch × channels × height × width`.

    Returns:
        The final latents, `batch × channels × height × width`.
    """
    arrays = condition_arrays(cfg_batch(*sampler.conditions(captions)))
    return runner(noise.numpy(), arrays.pop("prompt_embeds"), **arrays)


def condition_arrays(condition: Condition) -> dict[str, NDArray[Any]]:
    """Returns the inputs of a runner.

    Args:
        condition: The prompts' conditions; with guidance those of both halves.
    """
    added = condition.unet_kwargs.get("added_cond_kwargs") or {}
    tensors = {
        "prompt_embeds": condition.prompt_embeds,
        "text_emb": condition.text_emb,
        **condition.unet_kwargs,
        **added,
    }
    return {name: tensor.numpy() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}
