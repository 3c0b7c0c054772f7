"""Objectives end to end: resumed, each result used by the next, ablations, pictures in place of captions."""

from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.commands import config
from helpers.models import small_teacher
from helpers.objectives import PROMPTS, sampler
from safetensors.torch import load_file
from torch import Tensor

from clockwork.adaptors import FeatureDims, ResNet, load_adaptor
from clockwork.experiments.optimisation import optimisation
from clockwork.experiments.train import train_adaptor, train_and_validation_items, train_teacher
from clockwork.teachers import Teacher, load_teacher
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.fit import fit
from clockwork.training.latents import UnrolledLatents
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.training.objectives.guidance import GuidanceDistillation

ADAM = partial(torch.optim.Adam, lr=1e-3)
COSINE = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2)


def tune(teacher: Teacher, folder: Path, epochs: int) -> dict[str, Tensor]:
    module = GuidanceDistillation(
        teacher, GuidanceDistillation.init_student(teacher), 2, optimizer=ADAM, lr_scheduler=COSINE
    )
    data = OnlineDataModule(UnrolledLatents(sampler(teacher, steps=2), scales=(1.0, 5.0)), PROMPTS, 3, 1, 3)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    fit(module, folder, data, max_epochs=epochs, reload_dataloaders_every_n_epochs=1, **quiet)
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"unet"}  # the trained UNet alone
    return module.unet.state_dict()


def test_a_resumed_tuning_goes_on_as_if_nothing_happened(tmp_path: Path) -> None:
    small = small_teacher("bk_sdm_tiny", guidance=3.0)
    once = tune(small, tmp_path / "once", 2)
    tune(small, tmp_path / "stopped", 1)
    resumed = tune(small, tmp_path / "stopped", 2)
    assert all(torch.equal(weight, resumed[name]) for name, weight in once.items())
    assert once["time_embedding.cond_proj.weight"].any()  # it has learnt to hear the scale


@pytest.mark.slow
def test_the_chain_each_result_is_used_by_the_next(tmp_path: Path) -> None:
    """`make chain` with tiny values: surgery and recover → guidance → progressive → Clockwork on top."""
    made = tmp_path / "teachers"
    few = ["teacher.resolution=16", "prompts_per_epoch=2", "val_prompts=0", "step_counts=[2,2]"]
    train_teacher(config(tmp_path, "objective=recover", "teacher=miniature_sd", "name=light", *few))
    light = ["teacher=miniature_sd", f"teacher.path={made / 'light'}"]
    train_teacher(config(tmp_path, "objective=guidance", *light, "name=guided", *few))
    guided = ["teacher=miniature_sd", f"teacher.path={made / 'guided'}"]
    train_teacher(config(tmp_path, "objective=progressive", *guided, "name=fast", "start=4", "end=2", *few[:-1]))
    fast = load_teacher(str(made / "fast"), guidance=3.0, openclip="miniature", device="cpu")
    assert fast.unet.config.down_block_types[0] == "DownBlock2D" and fast.unet.config.time_cond_proj_dim == 256
    assert fast.unet_calls_per_step(3.0) == 1 and fast.noise_schedule["timestep_spacing"] == "trailing"
    on_top = ["teacher=miniature_distilled", f"teacher.path={made / 'fast'}", "steps=4"]
    train_adaptor(config(tmp_path, *on_top, *few[:-1]))
    _, point = load_adaptor(next((tmp_path / "training").rglob("adaptor")))
    assert (point.teacher, point.teacher_hash, point.solver, point.steps) == ("fast", fast.hash, "ddim", 4)
    assert not list(made.glob("*.partial"))


ABLATIONS = {
    "DPM": ["adaptor.inputs=[r_in,t_emb]", "solver=dpm"],
    "DDIM, unrolled at 6": ["adaptor.inputs=[r_out_prev,t_emb]", "solver=ddim", "steps=6"],
    "UNet without text": ["adaptor=unet", "adaptor.inputs=[r_in,r_out_prev,t_emb]"],
    "UNet-light at stage 2": ["adaptor=unet_light", "cut=stage2"],
    "clock 5,6,7,8": ["schedule='5,6,7,8'", "steps=8"],
    "noised at 4": ["data=noised", "images.count=100", "steps=4"],
    "noised at 16, PNDM": ["data=noised", "images.count=100", "steps=16", "solver=pndm"],
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_composes_and_trains_a_step(name: str, tmp_path: Path) -> None:
    train_adaptor(config(tmp_path, "prompts_per_epoch=1", "val_prompts=0", "steps=4", *ABLATIONS[name]))
    adaptor, point = load_adaptor(next(tmp_path.rglob("adaptor")))
    asked = dict(override.split("=", 1) for override in ABLATIONS[name])
    assert point.steps == int(asked.get("steps", 4)) and point.schedule == asked.get("schedule", "clock2").strip("'")
    assert point.solver == asked.get("solver", "dpm++")
    assert "adaptor.inputs" not in asked or f"[{','.join(adaptor.inputs)}]" == asked["adaptor.inputs"]


@pytest.mark.slow
def test_recovering_from_pictures(tmp_path: Path) -> None:
    small = [
        "objective=recover",
        "teacher=miniature_sd",
        "data=noised",
        "images.count=100",
        "name=light",
        "step_counts=[2,2]",
        "teacher.resolution=16",
        "prompts_per_epoch=2",
        "val_prompts=0",
    ]
    train_teacher(config(tmp_path, *small))
    assert load_teacher(str(tmp_path / "teachers" / "light"), device="cpu").unet_calls_per_step(3.0) == 2


# --- options -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "optimizer", "rates"),
    [
        ([], torch.optim.Adam, [1e-2, 0.5e-2, 0.0]),
        (
            ["optimizer=adamw", "lr_scheduler=linear", "epochs=4"],
            torch.optim.AdamW,
            [1e-2, 0.75e-2, 0.5e-2, 0.25e-2, 0.0],
        ),
        (["lr_scheduler=constant"], torch.optim.Adam, [1e-2] * 3),
        (["decay=false", "+optimizer.betas=[0.5,0.9]"], torch.optim.Adam, [1e-2] * 3),
    ],
)
def test_optimiser_and_schedule_come_from_the_config(
    options: list[str], optimizer: type[torch.optim.Optimizer], rates: list[float], tmp_path: Path
) -> None:
    cfg = config(tmp_path, "epochs=2", "decay=true", "learning_rate=1e-2", *options)
    made, schedule = optimisation(cfg)["optimizer"], optimisation(cfg)["lr_scheduler"]
    module = AdaptorDistillation(ResNet(FeatureDims(4, 6, 8, 5), 8, 1), optimizer=made, lr_scheduler=schedule)
    configured = module.configure_optimizers()
    (ours,), schedules = configured if isinstance(configured, tuple) else ([configured], [])
    assert type(ours) is optimizer and ("betas" not in str(options) or tuple(ours.defaults["betas"]) == (0.5, 0.9))
    seen = [ours.param_groups[0]["lr"]]
    for _ in range(cfg.epochs):
        ours.step()
        for each in schedules:
            each.step()
        seen.append(ours.param_groups[0]["lr"])
    assert seen == pytest.approx(rates, abs=1e-9)


def test_unets_are_trained_with_clipped_gradients_and_adaptors_as_in_the_paper(tmp_path: Path) -> None:
    clips = [config(tmp_path, f"objective={name}").trainer.gradient_clip_val for name in ("adaptor", *OBJECTIVES)]
    assert clips == [None, 1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("captions", "count"), [(50, 5), (9, 0), (1000, 32)])
def test_held_out_captions_are_not_trained_on(captions: int, count: int, tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("".join(f"a star {i}\n" for i in range(captions)))
    options = ["prompts=captions", f"prompts.path={file}", "prompts.count=null", "val_prompts=32"]
    items, held_out = train_and_validation_items(config(tmp_path, *options))
    again = train_and_validation_items(config(tmp_path, *options))[1]
    assert len(held_out) == count and len(items) == captions - count and held_out == again
    assert {p.text for p in [*items, *held_out]} == {f"a star {i}" for i in range(captions)}


# --- half precision ------------------------------------------------------------------------------------------

HALF = ["precision=bfloat16", "samples_every=1", "prompts_per_epoch=2", "teacher.resolution=16"]


def test_a_half_precision_teacher_trains_a_float32_adaptor(tmp_path: Path) -> None:
    """On the adaptor's roll-out, with a loss on the output, sample images, validation and averaged weights."""
    _, trainer = train_adaptor(
        config(tmp_path, *HALF, "rollout=adaptor", "output_loss=1", "schedule=clock4", "steps=3", "ema=0.9")
    )
    weights = load_file(next(tmp_path.rglob("adaptor.safetensors")))
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert trainer.datamodule.source.sampler.teacher.precision == "bfloat16"
    assert all(value.isfinite() for value in trainer.callback_metrics.values())
    assert len(list(tmp_path.rglob("samples/epoch0001.png"))) == 1


OBJECTIVES = {
    "recover": ["step_counts=[2,2]"],
    "guidance": ["step_counts=[2,2]", "trainer.precision=bf16-mixed"],
    "progressive": ["teacher.guidance=1", "start=4", "end=1"],
    "consistency": ["step_counts=[2,2]", "clocked=0.5", "adaptor=linear", "trainer.precision=bf16-mixed"],
}


@pytest.mark.parametrize(
    "name", ["guidance", *(pytest.param(name, marks=pytest.mark.slow) for name in OBJECTIVES if name != "guidance")]
)
def test_a_half_precision_teacher_makes_a_float32_student(name: str, tmp_path: Path) -> None:
    _, trainer = train_teacher(
        config(tmp_path, f"objective={name}", "teacher=miniature_sd", "name=new", *HALF, *OBJECTIVES[name])
    )
    weights = load_file(tmp_path / "teachers" / "new" / "unet" / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert all(value.isfinite() for value in trainer.callback_metrics.values())
    assert len(list(tmp_path.rglob("samples/epoch0001.png"))) == (2 if name == "progressive" else 1)
