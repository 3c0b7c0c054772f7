"""Training on a GPU that is not there (`helpers/fake_gpu.py`): SD v1.5 and SDXL in float16, in training in float32.

Lightning's own loop runs, on `cuda:0`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.fake_gpu import GPU, FakeGPU
from helpers.real_size import PROMPTS, RealSize, few_layers, switched_on
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.accelerators import CPUAccelerator
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException

from clockwork.adaptors import Linear, Residual
from clockwork.adaptors.resnet import ResNet
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.callbacks import StopWhenNotFinite
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.epoch_means import EpochMeans
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.fit import fit
from clockwork.training.latents import UnrolledLatents
from clockwork.training.objectives.adaptor import AdaptorDistillation
from clockwork.training.objectives.base import UNetDistillation
from clockwork.training.objectives.consistency import ConsistencyDistillation
from clockwork.training.objectives.features import FeatureDistillation
from clockwork.training.objectives.guidance import GuidanceDistillation
from clockwork.training.objectives.guided_output import GuidedOutput
from clockwork.training.objectives.progressive import ProgressiveDistillation


@pytest.fixture(params=["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def real(request: pytest.FixtureRequest) -> Iterator[RealSize]:
    with switched_on(few_layers(request.param)) as built:
        yield built


class AnyDevice(CPUAccelerator):
    def setup_device(self, device: torch.device) -> None:
        """Lightning's own accelerators ask whether the device is there."""


class Watch(Callback):
    """From the first batch of each epoch to the end of its last: what the host reads, and what the gradients are."""

    def __init__(self, gpu: FakeGPU) -> None:
        self.gpu = gpu
        self.seen: list[tuple[int, list[str], set[Any]]] = []

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        self.gpu.training = True
        if batch_idx == 0:
            self.gpu.host_reads.clear()

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self.gradients = {(p.grad.device, p.grad.dtype) for p in module.parameters()}

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.gpu.training = False
        self.seen.append((batch_idx, list(self.gpu.host_reads), self.gradients))


def test_an_adaptors_training(real: RealSize, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The host never waits for the GPU between an epoch's first batch and its last: not in the loop, nor for averaged
    weights, clipping, or the look at numbers that are not finite."""
    # At the end of an epoch values are read, which are not there; nor can they be saved.
    monkeypatch.setattr(StopWhenNotFinite, "_raise_if_not_finite", lambda *_: None)
    monkeypatch.setattr(EpochMeans, "read", lambda self: {})
    monkeypatch.setattr(Trainer, "save_checkpoint", lambda *_, **__: None)
    watch = Watch(real.gpu)
    with GPU:
        adaptor = ResNet(real.dims)
    sampler = replace(real.sampler, adaptor=adaptor)
    data = OnlineDataModule(
        TrajectoryExamples(sampler), PROMPTS, 2, repeats_per_epoch=2, batch_size=2, examples_device="device"
    )
    module = AdaptorDistillation(adaptor, [2], sampler.guidance, guided=1.0)
    strategy = SingleDeviceStrategy(GPU, accelerator=AnyDevice())
    quiet = {"strategy": strategy, "logger": False, "enable_progress_bar": False}
    fit(module, tmp_path, data, [watch], max_epochs=1, ema=0.999, gradient_clip_val=1.0, **quiet)
    assert watch.seen == [(number, [], {(GPU, torch.float32)}) for number in range(4)]


def test_examples_of_the_adaptors_roll_out() -> None:
    """After the first adaptor step they hold the adaptor's estimates, in the teacher's precision."""
    with switched_on(few_layers("sd15")) as sd15:
        clock4 = replace(sd15.sampler, schedule=Schedule.parse("clock4"), steps=3)
        parts: list[AdaptorExample] = list(TrajectoryExamples(clock4, "adaptor").parts(PROMPTS, 1, 0))
    assert [len(part) for part in parts] == [4, 4]  # two adaptor steps of two prompts with guidance
    assert {(part.r_out_prev.device, part.r_out_prev.dtype) for part in parts} == {(GPU, torch.float16)}


def test_a_step_with_history_and_a_loss_on_the_output() -> None:
    """A ResNet on a linear adaptor, whose maps are chosen by the example's step: the host waits for nothing. Gradients
    are the ResNet's, in float32."""
    with switched_on(few_layers("sd15")) as sd15:
        with GPU:
            correction = ResNet(sd15.dims)
            adaptor = Residual(Linear(sd15.dims, (2, 3, 4)), correction)
        sampler = replace(sd15.sampler, schedule=Schedule.parse("clock4"), steps=4, adaptor=adaptor)
        examples = TrajectoryExamples(sampler, "adaptor", with_latents=True)(PROMPTS, 1)
        options = {"guided": 1.0, "output": GuidedOutput(sampler), "output_loss": 1.0}
        module = AdaptorDistillation(adaptor, [2, 3, 4], sampler.guidance, **options)
        sd15.gpu.training = True
        sd15.gpu.host_reads.clear()
        loss = module.training_step(examples)
        loss.backward()
        sd15.gpu.training = False
        assert sd15.gpu.host_reads == [] and (loss.device, loss.dtype) == (GPU, torch.float32)
        assert {(p.grad.device, p.grad.dtype) for p in correction.parameters()} == {(GPU, torch.float32)}
        frozen = [*adaptor.base.parameters(), *sampler.split.unet.parameters()]
        assert all(p.grad is None for p in frozen) and sampler.split.unet.dtype == torch.float16


OBJECTIVES: dict[str, tuple[type[UNetDistillation], float]] = {
    "recover": (FeatureDistillation, 7.5),
    "guidance": (GuidanceDistillation, 7.5),
    "progressive": (ProgressiveDistillation, 1.0),
    "consistency": (ConsistencyDistillation, 7.5),
}


@pytest.mark.parametrize(
    "name",
    ["progressive", *(pytest.param(name, marks=pytest.mark.slow) for name in ("recover", "guidance", "consistency"))],
)
def test_a_step_of_an_objective_that_makes_a_teacher(name: str) -> None:
    objective, guidance = OBJECTIVES[name]
    with switched_on(few_layers("sd15")) as sd15:
        teacher = objective.check_teacher(Teacher("sd15", sd15.teacher.pipe, guidance))
        sampler = replace(sd15.sampler, teacher=teacher, adaptor=None, schedule=Schedule(), guidance=guidance)
        states = UnrolledLatents(sampler)(PROMPTS, 1)
        module = objective(teacher, objective.init_student(teacher), steps=2, guided=guidance != 1)
        sd15.gpu.training = True
        sd15.gpu.host_reads.clear()
        loss: Tensor = module.training_step(states, 0)
        loss.backward()
        sd15.gpu.training = False
        assert sd15.gpu.host_reads == []
        with pytest.raises(DataDependentOutputException):  # its figures are on the GPU until they are read
            module.means.read()
        assert (loss.device, loss.dtype) == (GPU, torch.float32)
        assert {(p.grad.device, p.grad.dtype) for p in module.unet.parameters()} == {(GPU, torch.float32)}
