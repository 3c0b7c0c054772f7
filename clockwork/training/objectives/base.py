"""What the objectives share: their optimiser and their figures; and, of those that make a teacher, the frozen one."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from diffusers import UNet2DConditionModel
from pytorch_lightning import LightningModule
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from clockwork.teachers import Condition, Teacher
from clockwork.training.epoch_means import EpochMeans, Figure
from clockwork.training.latents import NoisyLatents

MakeOptimizer: TypeAlias = Callable[[Iterable[torch.nn.Parameter]], Optimizer]
MakeScheduler: TypeAlias = Callable[[Optimizer], LRScheduler]
ADAM = partial(torch.optim.Adam, lr=1e-4)  # the paper's


class Objective(LightningModule):
    """Holds what is trained and nothing frozen: so does its checkpoint.

    Args:
        optimizer: From parameters to an optimiser, such as `partial(torch.optim.AdamW, lr=1e-4)`.
        lr_scheduler: From the optimiser to what changes its learning rate after every epoch; None: nothing does.
    """

    def __init__(
        self,
        optimizer: MakeOptimizer = ADAM,
        lr_scheduler: MakeScheduler | None = None,
    ) -> None:
        super().__init__()
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.means, self.validation_means = EpochMeans(), EpochMeans()
        self.figures: dict[str, float] = {}  # the epoch's, of the checkpoint saved or loaded last

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        return optimizer if self.lr_scheduler is None else ([optimizer], [self.lr_scheduler(optimizer)])

    def on_train_epoch_start(self) -> None:
        self.means = EpochMeans()

    def on_train_epoch_end(self) -> None:
        self._log_means(self.means)

    def on_validation_epoch_start(self) -> None:
        self.validation_means = EpochMeans()

    def on_validation_epoch_end(self) -> None:
        self._log_means(self.validation_means, "val/")

    def _log_means(self, means: EpochMeans, prefix: str = "") -> None:
        """Means over the examples of all processes."""
        for name, (mean, count) in means.read().items():
            self.log(prefix + name, mean, batch_size=count, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        checkpoint["figures"] = self.figures

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        self.figures = dict(checkpoint.get("figures", {}))
        if self.lr_scheduler is not None:
            for optimizer, scheduler in zip(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True):
                _follow(self.lr_scheduler, optimizer["param_groups"], scheduler)


def _follow(make: MakeScheduler, groups: list[dict[str, Any]], saved: dict[str, Any]) -> None:
    """Puts a saved schedule on the module's own, where that differs: a run with more epochs than it began with has the
    learning rate that one with all of them from the start would have by now."""
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": group["initial_lr"]} for group in groups]
    optimizer = torch.optim.SGD(parameters)
    scheduler = make(optimizer)
    shape = {key: value for key, value in scheduler.state_dict().items() if key[0] != "_" and key != "last_epoch"}
    if all(saved.get(key) == value for key, value in shape.items()):
        return
    for _ in range(saved["last_epoch"]):
        optimizer.step()
        scheduler.step()
    saved.update(scheduler.state_dict())
    for group, followed in zip(groups, optimizer.param_groups, strict=True):
        group["lr"] = followed["lr"]


class UNetDistillation(Objective):
    """A UNet in training against the frozen teacher that it will stand in for. Subclasses are final.

    Args:
        teacher: The frozen one; no part of the module, and so neither trained nor in a checkpoint.
        unet: What is trained, in float32 whatever the teacher's precision.
        steps: Of the student's roll-outs, which `progressive` halves.
        guided: Whether roll-outs are guided, so that both passes of guidance matter.
        training: `Objective`'s.
    """

    step_stride = 1  # which steps of the teacher's roll-outs are trained on: `latents.LatentSource.step_stride`

    def __init__(
        self, teacher: Teacher, unet: UNet2DConditionModel, steps: int, guided: bool = True, **training: Any
    ) -> None:
        super().__init__(**training)
        self.unet = unet.train().requires_grad_(True)
        self.teacher, self.steps, self.guided = teacher, steps, guided

    @classmethod
    def check_teacher(cls, teacher: Teacher) -> Teacher:
        """The teacher as this objective needs it; raises UserError where it cannot be."""
        return teacher

    @classmethod
    @abstractmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        """The UNet that training begins with, in float32 and sharing nothing with the teacher's."""

    @classmethod
    @abstractmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        """The passes that the loss of one example takes: the teacher's, and of the UNet in training."""

    @abstractmethod
    def losses(self, states: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        """The loss in float32, and with `untrained` what it was for the UNet that training began with."""

    def training_step(self, states: NoisyLatents, number: int) -> Tensor:
        loss, untrained = self.losses(states, untrained=number % 10 == 0)
        self.means.add(_figures(states, loss, untrained))
        return loss

    def validation_step(self, states: NoisyLatents) -> None:
        self.validation_means.add(_figures(states, *self.losses(states, untrained=True)))


def _figures(states: NoisyLatents, loss: Tensor, untrained: Tensor | None) -> dict[str, Figure]:
    """The loss, and the loss that training began with: it earns the difference."""
    losses = {"loss": loss} if untrained is None else {"loss": loss, "untrained": untrained}
    return {name: Figure(value.expand(len(states))) for name, value in losses.items()}


def predict(unet: UNet2DConditionModel, latents: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """What a UNet predicts, in its own precision."""
    condition = condition.to(unet.dtype)
    return unet(latents.to(unet.dtype), t, condition.prompt_embeds, **condition.unet_kwargs).sample


@contextmanager
def frozen(device: torch.device) -> Iterator[None]:
    """Around what the teacher computes: without gradients, and not in the lower precision that Lightning may train the
    student in."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def mean_square(ours: Tensor, theirs: Tensor) -> Tensor:
    """Mean square error in float32, whatever the teacher's precision."""
    return (ours.float() - theirs.float()).square().mean()
