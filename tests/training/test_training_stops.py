"""Training that is stopped, fails or runs in several processes, as a user starts it."""

import csv
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.commands import SHORT_TRAINING
from helpers.models import small_teacher
from helpers.processes import start, start_ranks
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.accelerators import CPUAccelerator, MPSAccelerator
from safetensors.torch import load_file

from clockwork.adaptors import ResNet
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.io.device import choose_device, lightning_device
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.fit import fit
from clockwork.training.interruption import interruptible
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.training.samples import SampleImages, comparison_samplers
from clockwork.unet.split import SplitUNet

FEW = [*SHORT_TRAINING, "epochs=2"]
QUIET = ["samples_every=0", "+trainer.enable_progress_bar=false", "device=cpu"]


def command(output: Path, *options: str) -> list[str]:
    return ["scripts/train.py", *FEW, *QUIET, *options, f"output={output}"]


@pytest.mark.parametrize(
    ("number", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_stopped_run_says_what_is_kept(number: signal.Signals, status: int, tmp_path: Path) -> None:
    process = start(*command(tmp_path, "epochs=100", "repeats_per_epoch=50", "val_prompts=0"))
    while not list(tmp_path.rglob("last.ckpt")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    code, _, errors = process.wait()
    assert code == status and "Traceback" not in errors, errors
    (last,) = tmp_path.rglob("last.ckpt")
    epochs = torch.load(last, weights_only=True)["epoch"] + 1
    assert f": the checkpoint of epoch {epochs} is kept in {last}, and the same command" in errors


@pytest.mark.slow
def test_two_processes_log_the_mean_over_both(tmp_path: Path) -> None:
    """With weights that hardly change, two processes log the same figures as one process on all prompts."""
    options = ["learning_rate=1e-30", "ema=0.9", "keep=best", "samples_every=2"]
    commands = command(tmp_path / "two", *options, "trainer.devices=2"), command(tmp_path / "one", *options)
    for process in [start(*words) for words in commands]:
        status, _, errors = process.wait()
        assert status == 0, errors
    logs = []
    for name in ("two", "one"):
        (file,) = (tmp_path / name).rglob("metrics.csv")
        lines = list(csv.DictReader(file.open(newline="")))
        logs.append([{key: float(value) for key, value in line.items() if value and key != "step"} for line in lines])
        assert len(list((tmp_path / name).rglob("*.png"))) == 1 and len(list((tmp_path / name).rglob("*.ckpt"))) == 3
    assert len(logs[0]) == len(logs[1]) == 4  # validation and training, of two epochs
    for ours, alone in zip(*logs, strict=True):
        assert ours == pytest.approx(alone, rel=1e-4)
    ours, alone = (load_file(next((tmp_path / name).rglob("adaptor.safetensors"))) for name in ("two", "one"))
    assert all(torch.allclose(weight, alone[name], rtol=0, atol=1e-20) for name, weight in ours.items())


def test_two_processes_that_diverge_end_with_one_sentence(tmp_path: Path) -> None:
    words = command(tmp_path, "learning_rate=1e30", "trainer.devices=2", "+trainer.strategy=ddp")
    statuses, _, errors = zip(*[process.wait() for process in start_ranks(2, *words)], strict=True)
    assert statuses == (2, 2)
    assert "".join(errors).count("error: the loss is not finite in epoch 1, batch 2, of ") == 1, errors
    assert "Traceback" not in "".join(errors) and not list(tmp_path.rglob("*.ckpt"))


# --- sample images -------------------------------------------------------------------------------------------


def run(teacher: Teacher, folder: Path, epochs: int) -> dict[str, torch.Tensor]:
    seed_everything(0, verbose=False)
    adaptor = ResNet(feature_dims(teacher, "stage1"), 8, 1, ("r_in", "r_out_prev", "t_emb"))
    sampler = Sampler(teacher, SplitUNet(teacher.unet), Schedule.parse("clock2"), "dpm++", 2, 3.0, adaptor, "resnet")
    prompts = [Prompt(i, f"a star {i}") for i in range(2)]
    module = AdaptorDistillation(adaptor, guidance=3.0, optimizer=partial(torch.optim.Adam, lr=1e-3))
    samples = SampleImages(comparison_samplers(sampler), prompts, folder / "samples", every_n_epochs=1)
    quiet = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
    data = OnlineDataModule(TrajectoryExamples(sampler), prompts, repeats_per_epoch=1)
    fit(module, folder, data, [samples], max_epochs=epochs, reload_dataloaders_every_n_epochs=1, **quiet)
    return adaptor.state_dict()


def test_an_error_in_sample_images_does_not_lose_the_epoch(tmp_path: Path) -> None:
    """Each epoch whose sample images failed is kept: the run gets further every time, to the same result."""
    teacher = small_teacher("bk_sdm_tiny", guidance=3.0)
    once = run(teacher, tmp_path / "once", 3)
    assert len(list((tmp_path / "once" / "samples").iterdir())) == 3
    broken = small_teacher("bk_sdm_tiny", guidance=3.0)
    broken.pipe.vae.decoder.conv_out.bias.fill_(float("nan"))
    for epoch in range(3):
        with pytest.raises(UserError, match="an image of teacher small_bk_sdm_tiny"):
            run(broken, tmp_path / "broken", 3)
        assert torch.load(tmp_path / "broken/checkpoints/last.ckpt", weights_only=True)["epoch"] == epoch
    resumed = run(broken, tmp_path / "broken", 3)
    assert all(torch.equal(weight, resumed[name]) for name, weight in once.items())


# --- the device ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:GPU available but not used")
def test_lightning_trains_where_the_teacher_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a Mac, `auto` is MPS for the teacher and for Lightning alike, and `cpu` is the CPU for both."""
    for mps in (MPSAccelerator, torch.backends.mps):
        monkeypatch.setattr(mps, "is_available", staticmethod(lambda: True))
    assert lightning_device(choose_device("auto")) == {"accelerator": "mps", "devices": 1}
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False}
    trainer = Trainer(**lightning_device(choose_device("cpu")), **quiet)
    assert isinstance(trainer.accelerator, CPUAccelerator) and trainer.strategy.root_device == torch.device("cpu")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)],
    ids=["SIGINT", "SIGTERM"],
)
def test_a_stop_that_became_the_cause_of_another_exception(
    number: signal.Signals, expected: type[BaseException], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(expected) as stop, interruptible(trainer, tmp_path / "last.ckpt"):
            try:
                signal.raise_signal(number)
            finally:
                raise AttributeError("of a library that was cleaning up")
    finally:
        signal.signal(signal.SIGINT, before)
    said = str(stop.value) if number == signal.SIGINT else capsys.readouterr().err
    assert "the first epoch had not ended, and nothing is kept" in said
    assert number == signal.SIGINT or stop.value.args == (143,)
