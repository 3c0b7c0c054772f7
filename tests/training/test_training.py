"""Distillation: what examples hold, that it repeats itself, and that a killed run goes on as if nothing happened."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import seed_everything
from torch import Tensor

from clockwork.adaptors import ResNet
from clockwork.metrics.similarity import distance
from clockwork.miniature.prompts import scene_prompts
from clockwork.reports.loggers import make_logger
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.guidance import apply_guidance
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher, load_teacher
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import AdaptorDistillation, guided_distance
from clockwork.unet.split import SplitUNet

ADAM = partial(torch.optim.Adam, lr=1e-3)
COSINE = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0)


def sampler(teacher: Teacher, schedule: str = "clock2", steps: int = 4) -> Sampler:
    adaptor = ResNet(feature_dims(teacher, "stage1"), 16, 1)
    return Sampler(teacher, SplitUNet(teacher.unet), Schedule.parse(schedule), "dpm++", steps, 3.0, adaptor, "resnet")


def examples(made: Sampler, rollout: str = "teacher") -> AdaptorExample:
    return TrajectoryExamples(made, rollout)(scene_prompts("train", 2), 1)


def test_examples_are_neighbours_on_the_teachers_trajectory(teacher: Teacher) -> None:
    """At clock 4 of 6 steps the adaptor's are 2, 3, 4 and 6; each begins with what the one before answered."""
    made = sampler(teacher, "clock4", 6)
    batch = examples(made)
    assert batch.step.tolist() == [s for s in (2, 3, 4, 6) for _ in range(4)]  # two prompts, two halves of guidance
    assert torch.equal(batch.r_out_prev[4:12], batch.r_out[:8])
    e = made.split.embed(torch.zeros(1, 4, 16, 16), torch.tensor(1), torch.zeros(1, 32, 64))
    assert batch.t_emb.shape[1] == e.t_emb.shape[1]
    assert batch.text_emb.shape[1] == teacher.text_width


def test_on_its_own_roll_out_an_estimate_is_what_the_next_step_begins_with(teacher: Teacher) -> None:
    """The adaptor is new, so it is still the identity, and repeats what the full step before made."""
    made = sampler(teacher, "clock4", 6)
    of_teacher, of_adaptor = examples(made), examples(made, "adaptor")
    first = of_teacher.r_out_prev[:4]
    assert torch.equal(of_adaptor.r_out_prev[:4], first) and torch.equal(of_adaptor.r_out[:4], of_teacher.r_out[:4])
    assert torch.equal(of_adaptor.r_out_prev[4:12], torch.cat([first, first]))
    assert not torch.allclose(of_adaptor.r_out[4:8], of_teacher.r_out[4:8])  # the latents are other ones
    assert not torch.allclose(of_adaptor.r_out_prev[12:], of_teacher.r_out_prev[12:])  # also on the full step between


def test_distance_is_the_norm() -> None:
    a, b = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    a, b = a[None], b[None]
    assert distance(a, b).item() == pytest.approx(torch.linalg.vector_norm(a - b).item() / 60**0.5, rel=1e-5)


def test_the_guided_error_is_that_of_the_guided_features() -> None:
    """Guidance is linear: guiding the errors is the error of what was guided, with the roll-out's own arithmetic."""
    estimate, truth = torch.randn(2, 6, 3, 4, 5, generator=torch.Generator().manual_seed(0)).unbind(0)
    wanted = distance(apply_guidance(estimate, 3.0), apply_guidance(truth, 3.0))
    torch.testing.assert_close(guided_distance(estimate - truth, 3.0), wanted)


def train(
    teacher: Teacher, folder: Path, epochs: int, schedule: str = "clock2", rollout: str = "teacher", **options: Any
) -> dict[str, Tensor]:
    seed_everything(0, verbose=False)
    made = sampler(teacher, schedule)
    assert made.adaptor is not None
    source, validation = TrajectoryExamples(made, rollout), scene_prompts("validation", 2)
    data = OnlineDataModule(
        source, scene_prompts("train", 50), 4, repeats_per_epoch=2, batch_size=4, validation=validation
    )
    module = AdaptorDistillation(made.adaptor, (2, 4), guidance=3.0, guided=1.0, optimizer=ADAM, lr_scheduler=COSINE)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    trainer = fit(module, folder, data, max_epochs=epochs, reload_dataloaders_every_n_epochs=1, **quiet, **options)
    assert trainer.callback_metrics["loss"] < trainer.callback_metrics["identity"]
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert {name.split(".")[0] for name in checkpoint["state_dict"]} == {"adaptor"}  # nothing frozen
    assert made.adaptor.dtype == torch.float32
    return made.adaptor.state_dict()


def test_training_repeats_itself_and_resumes(teacher: Teacher, tmp_path: Path) -> None:
    once = train(teacher, tmp_path / "once", 2)
    again = train(teacher, tmp_path / "again", 2)
    train(teacher, tmp_path / "stopped", 1)
    resumed = train(teacher, tmp_path / "stopped", 2)
    for name, weight in once.items():
        assert torch.equal(weight, again[name]) and torch.equal(weight, resumed[name]), name


def test_training_on_a_half_precision_teacher_resumes(tmp_path: Path) -> None:
    """On the adaptor's roll-out, with validation and averaged weights."""
    half = load_teacher("miniature", guidance=3.0, resolution=16, device="cpu", precision="bfloat16")
    options = {"schedule": "clock4", "rollout": "adaptor", "ema": 0.9, "monitor": "val/guided_relative_l2"}
    once = train(half, tmp_path / "once", 2, **options)
    train(half, tmp_path / "stopped", 1, **options)
    resumed = train(half, tmp_path / "stopped", 2, **options)
    assert all(torch.equal(weight, resumed[name]) for name, weight in once.items())


def test_a_schedule_without_adaptor_steps_cannot_be_trained_on(teacher: Teacher) -> None:
    with pytest.raises(ValueError, match="no adaptor steps"):
        TrajectoryExamples(sampler(teacher, "full"))


def test_a_resumed_run_keeps_the_log_of_the_one_before(tmp_path: Path) -> None:
    for loss in (2.0, 1.0):
        logger = make_logger({"name": "csv"}, tmp_path)[0]
        logger.log_metrics({"loss": loss}, step=0)
        logger.save()
    logs = sorted((tmp_path / "log").rglob("metrics.csv"))
    assert [log.read_text().splitlines()[1].split(",")[0] for log in logs] == ["2.0", "1.0"]
