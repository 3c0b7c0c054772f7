"""Teachers of other forms: roll-outs against diffusers' own pipelines, surgery by name, folders in and out."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.models import small_inputs, small_teacher, small_unet
from torch import Tensor

from clockwork.adaptors import Identity
from clockwork.flops.cost import image_flops
from clockwork.sampling.denoisers import Denoised
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.rollout import rollout
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.schedule import Schedule
from clockwork.teachers import Condition, Teacher, load_teacher
from clockwork.teachers.architectures import meta_unet
from clockwork.teachers.surgery import with_guidance_input, without_top_attention
from clockwork.unet.split import SplitUNet

CAPTIONS = ["a large red circle", "a green star on a white background"]


def sampler(teacher: Teacher, solver: str = "dpm++", guidance: float = 4.0, steps: int = 4) -> Sampler:
    return Sampler(teacher, SplitUNet(teacher.unet), Schedule(), solver, steps, guidance)


def pipeline(teacher: Teacher, solver: str, guidance: float, steps: int = 4) -> Tensor:
    teacher.pipe.scheduler = make_solver(solver, teacher.noise_schedule)
    made = teacher.pipe(
        CAPTIONS,
        num_inference_steps=steps,
        guidance_scale=guidance,
        latents=teacher.noise([0, 1]),
        output_type="latent",
        height=teacher.resolution,
        width=teacher.resolution,
    )
    return made.images


@pytest.mark.parametrize("solver", ["dpm++", "ddim"])
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("form", ["sdxl", "guided"])
def test_a_rollout_is_the_pipelines(form: str, guidance: float, solver: str) -> None:
    """SDXL's second text encoder, time ids and zeros for no prompt; the scale's embedding (`timestep_cond`)."""
    teacher = small_teacher(form)
    ours = sampler(teacher, solver, guidance).latents(CAPTIONS, teacher.noise([0, 1]))
    assert torch.equal(ours, pipeline(teacher, solver, guidance))


def test_sdxls_empty_prompt_is_encoded_where_the_pipeline_says_so() -> None:
    teacher = small_teacher("sdxl")
    zeros = sampler(teacher).latents(CAPTIONS, teacher.noise([0, 1]))
    teacher.pipe.register_to_config(force_zeros_for_empty_prompt=False)
    ours = sampler(teacher).latents(CAPTIONS, teacher.noise([0, 1]))
    theirs = pipeline(teacher, "dpm++", 4.0)  # it encodes "" twice, and a batch of two rounds otherwise
    assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3) and not torch.allclose(ours, zeros, rtol=0.1)


def test_joined_conditions_are_one_batch() -> None:
    """Negative then positive in every tensor of the UNet's arguments: the halves answer as they do apart."""
    teacher = small_teacher("sdxl")
    positive, negative = teacher.conditions(CAPTIONS, 4.0)
    assert negative is not None and len(negative) == 1
    both = Condition.concat(negative.expand(2), positive)
    noise, t = teacher.noise([0, 1]), torch.tensor(700)
    whole = teacher.unet(torch.cat([noise, noise]), t, both.prompt_embeds, **both.unet_kwargs).sample
    apart = [teacher.unet(noise, t, c.prompt_embeds, **c.unet_kwargs).sample for c in (negative.expand(2), positive)]
    assert torch.allclose(whole, torch.cat(apart), atol=1e-5)
    assert both.unet_kwargs["added_cond_kwargs"]["time_ids"].tolist() == [[32.0, 32, 0, 0, 32, 32]] * 4


def test_a_guided_unet_takes_one_pass_and_hears_the_scale() -> None:
    teacher, plain = small_teacher("guided"), small_teacher("sd15")
    assert (teacher.unet_calls_per_step(4.0), plain.unet_calls_per_step(4.0), plain.unet_calls_per_step(1.0)) == (
        1,
        2,
        1,
    )
    low, high = (sampler(teacher, guidance=g).latents(CAPTIONS, teacher.noise([0, 1])) for g in (2.0, 6.0))
    assert not torch.equal(low, high)
    per_caption = teacher.conditions(CAPTIONS, torch.tensor([2.0, 6.0]))[0].unet_kwargs["timestep_cond"]
    for i, scale in enumerate((2.0, 6.0)):
        assert torch.equal(per_caption[i], teacher.conditions(CAPTIONS, scale)[0].unet_kwargs["timestep_cond"][i])
    assert image_flops(sampler(teacher)).full < 0.6 * image_flops(sampler(plain)).full


@pytest.mark.parametrize("form", ["sdxl", "guided", "bk_sdm_tiny"])
def test_an_adaptor_fits_and_runs(form: str) -> None:
    teacher = small_teacher(form)
    adaptor = Identity(feature_dims(teacher, "stage1"))
    clocked = replace(sampler(teacher), schedule=Schedule.parse("clock2"), adaptor=adaptor, adaptor_name="identity")
    assert image_flops(clocked).full < image_flops(sampler(teacher)).full
    ours, full = (s.latents(CAPTIONS, teacher.noise([0, 1])) for s in (clocked, sampler(teacher)))
    assert ours.shape == full.shape and not torch.equal(ours, full)


# --- surgery ------------------------------------------------------------------------------------------------


def test_surgery_keeps_every_other_weight_by_name() -> None:
    unet = small_unet("sd15")
    before = {name: w.clone() for name, w in unet.state_dict().items()}
    lighter = without_top_attention(unet)
    kept = lighter.state_dict()
    gone = before.keys() - kept.keys()
    assert not kept.keys() - before.keys() and all(torch.equal(w, before[name]) for name, w in kept.items())
    assert gone and all(name.startswith(("down_blocks.0.attentions.", "up_blocks.3.attentions.")) for name in gone)
    assert lighter(**small_inputs("sd15")).sample.shape == unet(**small_inputs("sd15")).sample.shape
    with pytest.raises(ValueError, match="no transformer blocks at its highest resolution"):
        without_top_attention(lighter)


def test_surgery_is_skipping_those_blocks() -> None:
    """A second way of computing it: the whole UNet, its highest attentions made to give their input back."""
    unet, inputs = small_unet("sd15"), small_inputs("sd15")
    light = without_top_attention(unet)(**inputs).sample
    hooks = [
        attention.register_forward_hook(lambda _, args, __: (args[0],))
        for block in (unet.down_blocks[0], unet.up_blocks[-1])
        for attention in block.attentions
    ]
    assert torch.equal(unet(**inputs).sample, light)
    for hook in hooks:
        hook.remove()
    assert not torch.equal(unet(**inputs).sample, light)


def test_surgery_on_sd15_gives_the_papers_parameters() -> None:
    """859.52M before, 846.79M after (paper, Section 5)."""
    unet = meta_unet("sd15")
    with torch.device("meta"):
        lighter = without_top_attention(unet)
    assert sum(p.numel() for p in unet.parameters()) == 859_520_964
    assert round(sum(p.numel() for p in lighter.parameters()) / 1e6, 2) == 846.79
    assert lighter.state_dict().keys() == meta_unet("efficient").state_dict().keys()


def test_a_new_guidance_input_changes_nothing_at_first() -> None:
    unet, inputs = small_unet("sd15"), small_inputs("sd15")
    conditioned = with_guidance_input(unet, 16)
    plain = unet(**inputs).sample
    for scale in (0.0, 1.0):
        assert torch.equal(conditioned(**inputs, timestep_cond=torch.full((2, 16), scale)).sample, plain)
    with pytest.raises(ValueError, match="already"):
        with_guidance_input(conditioned)


# --- rectified flows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4])
def test_a_straight_flow_is_followed_to_its_end(steps: int) -> None:
    """Liu et al. 2023: where the velocity is data − noise, any number of steps leads from noise to data."""
    noise, data = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind(0)

    def straight(sample: Tensor, t: Tensor, *_: object) -> Denoised:
        assert torch.allclose(sample, solver.add_noise(data, noise, t.expand(3)), atol=1e-6)
        return Denoised(data - noise, sample, sample, t, full=True)

    solver = make_solver("flow", {"prediction_type": "flow", "num_train_timesteps": 1000})
    *_, last = rollout(straight, solver, steps, noise, Condition(torch.empty(3, 1, 1)))
    assert torch.allclose(last.latents, data, atol=1e-6)
    solver.set_timesteps(steps)
    assert solver.timesteps.tolist() == [1000 * (1 - i / steps) for i in range(steps)]


def test_solvers_and_flows_do_not_mix() -> None:
    with pytest.raises(ValueError, match="solver dpm\\+\\+ does not fit"):
        sampler(small_teacher("sd15", flow=True))
    with pytest.raises(ValueError, match="predicts epsilon"):
        sampler(small_teacher("sd15"), "flow")


# --- folders ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["sdxl", "guided", "bk_sdm_tiny"])
def test_a_saved_teacher_is_loaded_again(form: str, tmp_path: Path) -> None:
    teacher = small_teacher(form)
    teacher.save(tmp_path / "made")
    again = load_teacher(str(tmp_path / "made"), device="cpu")
    assert again.hash == teacher.hash and again.name == "made"
    ours, theirs = (sampler(t).latents(CAPTIONS, t.noise([0, 1])) for t in (teacher, again))
    assert torch.equal(ours, theirs)
    other = teacher.with_components("other", unet=small_unet(form))
    assert other.pipe.vae is teacher.pipe.vae and other.unet is not teacher.unet


def test_folders_that_are_no_teachers_are_refused(tmp_path: Path) -> None:
    small_teacher("sd15").save(tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    shutil.rmtree(tmp_path / "part" / "unet")
    with pytest.raises(FileNotFoundError, match="not a complete pipeline folder"):
        load_teacher(str(tmp_path / "part"))
    index = {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}
    (tmp_path / "sd3").mkdir()
    (tmp_path / "sd3" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="is a StableDiffusion3Pipeline: a teacher needs a UNet"):
        load_teacher(str(tmp_path / "sd3"))
    with pytest.raises(FileNotFoundError, match="train it with `make chain`"):
        load_teacher("not_made_yet", made_by="make chain")
