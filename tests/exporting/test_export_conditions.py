"""Other UNets: SDXL's sizes and pooled text, the embedding of the guidance scale, and SD v1.5 at real size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionXLPipeline
from helpers.commands import run
from helpers.exporting import GUIDANCE, SDXL, STEPS, largest_difference, tiny_pipeline

import clockwork
from clockwork.adaptors import Identity
from clockwork.experiments.bench_export import condition_arrays, latents_of_runner
from clockwork.exporting.graphs import (
    AdaptorGraph,
    FullGraph,
    GraphInputs,
    adaptor_inputs,
    export_graph,
    full_inputs,
)
from clockwork.exporting.runner import Runner, RunnerError
from clockwork.sampling.guidance import cfg_batch
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.teachers.architectures import meta_unet
from clockwork.unet.split import SplitUNet

UNETS: dict[str, dict[str, Any]] = {"text_embeds, time_ids": SDXL, "timestep_cond": {"time_cond_proj_dim": 16}}


@pytest.mark.slow
def test_stable_diffusion_xl_in_its_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From its folder to ONNX by the command: onnxruntime gives the latents of diffusers' own pipeline."""
    tiny_pipeline(**SDXL).save_pretrained(tmp_path / "sdxl")
    folder = tmp_path / "pair"
    teacher = ["teacher=sdxl", f"teacher.path={tmp_path / 'sdxl'}", "teacher.resolution=16", "teacher.guidance=3"]
    words = [*teacher, "teacher.cross_attention_dim=12", "adaptor=identity", f"steps={STEPS}", f"output={folder}"]
    run(monkeypatch, "export", *words)
    pipe = StableDiffusionXLPipeline.from_pretrained(tmp_path / "sdxl", add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    clockwork.enable(pipe, "clock2", cut="stage1")
    assert largest_difference(pipe, Runner(folder), 1, 8, 8) < 1e-4
    assert largest_difference(pipe, Runner(folder), 2, 12, 8) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("names", UNETS)
def test_further_inputs(names: str, tmp_path: Path) -> None:
    """The runner gives the latents of the sampler, whose conditions it gets; without them it refuses."""
    pipe = tiny_pipeline(**UNETS[names])
    teacher = Teacher("tiny", pipe, guidance=GUIDANCE)
    clock, split = Schedule.parse("clock2"), SplitUNet(pipe.unet)
    sampler = Sampler(teacher, split, clock, "dpm++", STEPS, GUIDANCE, Identity(), "identity")
    captions, noise = ["a red circle", "snow"], teacher.noise([1, 2])
    expected = sampler.latents(captions, noise).numpy()
    clockwork.enable(pipe, "clock2", cut="stage1")
    call = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE}
    runner = Runner(clockwork.export(pipe, tmp_path / "pair", "pt2", **call))
    np.testing.assert_allclose(latents_of_runner(runner, sampler, captions, noise), expected, atol=1e-4)
    text = condition_arrays(cfg_batch(*sampler.conditions(captions)))["prompt_embeds"]
    with pytest.raises(RunnerError, match=f"the graphs read {names} as well: pass it by name"):
        runner(noise.numpy(), text)


@pytest.mark.slow
def test_stable_diffusion_at_real_size() -> None:
    """Its graphs hold for all shapes that an export allows; `torch.export` proves that from the operations."""
    split, adaptor = SplitUNet(meta_unet("sd15")), Identity()
    full = on_meta(full_inputs(split, 77, guided=True))
    further = on_meta(adaptor_inputs(split, adaptor, full, guided=True))
    for graph, inputs in (
        (FullGraph(split, tuple(full.tensors)), full),
        (AdaptorGraph(split, adaptor, tuple(further.tensors)), further),
    ):
        program = export_graph(graph, inputs)
        assert {int(bounds.upper) for bounds in program.range_constraints.values()} <= {16, 32, 128, 256}
        assert ("mid_block" in str(program.state_dict.keys())) == isinstance(graph, FullGraph)


def on_meta(inputs: GraphInputs) -> GraphInputs:
    return GraphInputs({name: tensor.to("meta") for name, tensor in inputs.tensors.items()}, inputs.dims)
