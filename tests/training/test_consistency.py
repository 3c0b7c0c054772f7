"""Consistency distillation: its arithmetic against diffusers and by hand, and trainings from start to result."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LCMScheduler
from helpers.commands import config
from helpers.models import small_teacher
from helpers.objectives import PROMPTS, sampler
from torch import Tensor, nn

from clockwork.adaptors import Linear, load_adaptor
from clockwork.calibration.fit import calibrate_sampler
from clockwork.experiments.train import train_teacher
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.fit import fit
from clockwork.training.latents import NoisyLatents, UnrolledLatents
from clockwork.training.objectives import consistency
from clockwork.training.objectives.consistency import ConsistencyDistillation
from clockwork.unet.split import SplitUNet


def examples(teacher: Teacher, t: list[int], seed: int = 0) -> NoisyLatents:
    captions = tuple(f"a red circle {i}" for i in range(len(t)))
    return NoisyLatents(teacher.noise(list(range(len(t))), seed), torch.tensor(t), torch.full((len(t),), 3.0), captions)


def distillation(teacher: Teacher, **options: Any) -> ConsistencyDistillation:
    teacher = ConsistencyDistillation.check_teacher(teacher)
    return ConsistencyDistillation(teacher, ConsistencyDistillation.init_student(teacher), 4, **options)


def clocked(teacher: Teacher) -> ConsistencyDistillation:
    """With a linear adaptor on the second and the fourth of four steps."""
    teacher = ConsistencyDistillation.check_teacher(teacher)
    unet = ConsistencyDistillation.init_student(teacher)
    student = ConsistencyDistillation.as_teacher(teacher, "student", unet)
    adaptor, clock = (
        Linear(feature_dims(student, "stage1"), (2, 4), branches=("conditional",)),
        Schedule.parse("clock2"),
    )
    point = Sampler(student, SplitUNet(unet), clock, "lcm", 4, 3.0, adaptor, "linear")
    return ConsistencyDistillation(teacher, unet, 4, clocked=point, share=0.5)


# --- arithmetic ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_clean_latents_are_those_of_diffusers_solver(prediction: str) -> None:
    """At timestep 0 they are the latents themselves, whatever the UNet predicts: the boundary condition."""
    teacher = small_teacher("guided")
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
    scheduler = LCMScheduler(**betas, prediction_type=prediction)
    module = distillation(teacher.with_components("guided", scheduler=scheduler))
    z, output = torch.randn(2, 3, 4, 6, 6, generator=torch.Generator().manual_seed(0)).unbind(0)
    scheduler.set_timesteps(4)
    for t in scheduler.timesteps:
        wanted = scheduler.step(output, t, z).denoised
        torch.testing.assert_close(module.consistent(output, z, t.expand(3)), wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(module.consistent(output, z, torch.zeros(3, dtype=torch.long)), z)


def test_the_target_by_hand(teacher: Teacher) -> None:
    """Guidance and the DDIM step in the noise of the v-prediction, then the target network behind the boundary."""
    module, batch = distillation(teacher, skip=100), examples(teacher, [999, 519, 60])
    with torch.no_grad():
        nn.init.normal_(module.target_unet.conv_out.weight, std=0.05)  # so that it is neither student nor teacher
        target, _ = module.target(batch)
        text, nothing = teacher.encode(list(batch.captions), False), teacher.encode([""] * 3, False)
        with_prompt, without = (
            teacher.unet(batch.latents, batch.timestep, c.prompt_embeds).sample for c in (text, nothing)
        )
        v = without + 3.0 * (with_prompt - without)
        products = teacher.pipe.scheduler.alphas_cumprod[:, None, None, None]
        a, b = products[batch.timestep], products[[899, 419, 0]]
        noise, clean = a.sqrt() * v + (1 - a).sqrt() * batch.latents, a.sqrt() * batch.latents - (1 - a).sqrt() * v
        z = b.sqrt() * clean + (1 - b).sqrt() * noise
        condition, _ = module.student.conditions(list(batch.captions), 3.0, with_text_emb=False)
        t = torch.tensor([899, 419, 0])
        v = module.target_unet(z, t, condition.prompt_embeds, **condition.unet_kwargs).sample
        scaled = 10.0 * t[:, None, None, None]
        wanted = 0.25 / (scaled**2 + 0.25) * z + scaled / (scaled**2 + 0.25).sqrt() * (
            b.sqrt() * z - (1 - b).sqrt() * v
        )
    torch.testing.assert_close(target, wanted, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(target[2], z[2], rtol=0, atol=1e-5)  # the boundary


def test_the_loss_of_a_consistency_function_is_zero(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all images are one, every roll-out ends there, and the UNet that predicts it is consistent."""
    module, batch, end = distillation(teacher, skip=100), examples(teacher, [999, 519, 219]), torch.full((4, 1, 1), 0.3)
    shift = {module.unet: 0.0}

    def predict(unet: nn.Module, z: Tensor, t: Tensor, _: Any) -> Tensor:
        alpha, sigma = (x.float() for x in module.ddim.alpha_sigma(t))
        clean = end + shift.get(unet, 0.0)
        return (alpha * z - clean) / sigma

    monkeypatch.setattr(consistency, "predict", predict)
    assert module.losses(batch, True)[0].item() < 1e-7
    shift[module.unet] = 0.5
    assert module.losses(batch, True)[0].item() == pytest.approx(0.5, abs=0.002)  # the Huber width is 0.001


# --- training ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [distillation, clocked])
def test_training_lowers_the_loss(make: Any, teacher: Teacher) -> None:
    module = make(load_teacher("miniature_sd", guidance=3.0, resolution=16, device="cpu"))
    batch = examples(module.teacher, [999, 799, 599, 399])
    optimizer = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=3e-5)
    losses = []
    for _ in range(8):
        loss, _ = module.losses(batch, False)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0], losses
    if module.adaptor is not None:
        assert all(p.detach().any() for p in module.adaptor.parameters())  # they started at zero


def train(teacher: Teacher, folder: Path, epochs: int) -> dict[str, Tensor]:
    module = clocked(teacher)
    data = OnlineDataModule(UnrolledLatents(sampler(module.teacher, "ddim", steps=2)), PROMPTS, 3, 1, 3)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    fit(module, folder, data, max_epochs=epochs, reload_dataloaders_every_n_epochs=1, **quiet)
    return module.state_dict()


@pytest.mark.slow
def test_a_resumed_training_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    """With an adaptor in place; the target network is a moving average of the student."""
    teacher = small_teacher("bk_sdm_tiny", guidance=3.0)
    once = train(teacher, tmp_path / "once", 2)
    train(teacher, tmp_path / "stopped", 1)
    resumed = train(teacher, tmp_path / "stopped", 2)
    assert {name.split(".")[0] for name in once} == {"unet", "target_unet", "adaptor"}
    assert all(torch.equal(weight, resumed[name]) for name, weight in once.items())
    name = "conv_in.weight"
    start, student, target = teacher.unet.state_dict()[name], once[f"unet.{name}"], once[f"target_unet.{name}"]
    assert 0 < float((target - start).norm()) < 0.5 * float((student - start).norm())


@pytest.mark.slow
def test_the_result_is_a_teacher_that_is_calibrated(tmp_path: Path) -> None:
    """Its adaptor, trained with it, is one for it; at two steps, the second may be an adaptor step."""
    few = ["teacher.resolution=16", "prompts_per_epoch=2", "val_prompts=1", "step_counts=[2,2]", "name=lcm"]
    together = ["clocked=0.5", "adaptor=linear", "steps=2"]
    folder, trainer = train_teacher(config(tmp_path, "objective=consistency", *few, *together))
    assert trainer is not None and all(value.isfinite() for value in trainer.callback_metrics.values())
    lcm = load_teacher(str(folder), guidance=3.0, resolution=16, openclip="miniature", device="cpu")
    assert isinstance(lcm.pipe.scheduler, LCMScheduler) and lcm.unet_calls_per_step(3.0) == 1
    _, point = load_adaptor(next((tmp_path / "training").rglob("adaptor")))
    assert (point.teacher, point.teacher_hash, point.solver, point.steps) == ("lcm", lcm.hash, "lcm", 2)
    _, again = train_teacher(config(tmp_path, "objective=consistency", *few, *together))
    assert again is None
    start = Linear(feature_dims(lcm, "stage1"), (2,), branches=("conditional",))
    clock = Sampler(lcm, SplitUNet(lcm.unet), Schedule.parse("clock2"), "lcm", 2, 3.0, start, "linear")
    assert calibrate_sampler(clock, PROMPTS * 8).sampler.adaptor is not None
