"""Base classes of the objectives: optimiser and logged figures, and the frozen teacher of those that train a UNet."""

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
ADAM = partial(torch.optim.Adam, lr=1e-4)  # as in the paper


class Objective(LightningModule):
    """Base class of all objectives. The module, and so its checkpoint, contains only what is trained.

    Args:
        optimizer: Function that creates the optimiser from parameters, such as `partial(torch.optim.AdamW, lr=1e-4)`.
        lr_scheduler: Function that creates the learning-rate schedule, which is stepped after every epoch, from the
            optimiser; without it the learning rate is constant.

    Attributes:
        figures: The epoch's logged figures in the checkpoint that was saved or loaded last.
    """

    def __init__(
        self,
        optimizer: MakeOptimizer = ADAM,
        lr_scheduler: MakeScheduler | None = None,
    ) -> None:
        super().__init__()
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.means, self.validation_means = EpochMeans(), EpochMeans()
        self.figures: dict[str, float] = {}

    def configure_optimizers(self) -> Any:
        """Creates the optimiser and the learning-rate schedule."""
        optimizer = self.optimizer(weight for weight in self.parameters() if weight.requires_grad)
        return optimizer if self.lr_scheduler is None else ([optimizer], [self.lr_scheduler(optimizer)])

    def on_train_epoch_start(self) -> None:
        """Resets the means of the training figures."""
        self.means = EpochMeans()

    def on_train_epoch_end(self) -> None:
        """Logs the means of the training figures."""
        self._log_means(self.means)

    def on_validation_epoch_start(self) -> None:
        """Resets the means of the validation figures."""
        self.validation_means = EpochMeans()

    def on_validation_epoch_end(self) -> None:
        """Logs the means of the validation figures with the prefix `val/`."""
        self._log_means(self.validation_means, "val/")

    def _log_means(self, means: EpochMeans, prefix: str = "") -> None:
        """Logs means over the examples of all processes."""
        for name, (mean, count) in means.read().items():
            self.log(prefix + name, mean, batch_size=count, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the epoch's figures to the checkpoint."""
        self.figures = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        checkpoint["figures"] = self.figures

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Reads the epoch's figures, and adapts the saved learning-rate schedule to the number of epochs."""
        self.figures = dict(checkpoint.get("figures", {}))
        if self.lr_scheduler is not None:
            for optimizer, scheduler in zip(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True):
                _adapt_schedule(self.lr_scheduler, optimizer["param_groups"], scheduler)


def _adapt_schedule(make: MakeScheduler, groups: list[dict[str, Any]], saved: dict[str, Any]) -> None:
    """Replaces the state of a saved learning-rate schedule in place, if the module's schedule has other settings.

    A run that is extended to more epochs then continues with the learning rate that a run of this length would have.
    """
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(()))], "lr": group["initial_lr"]} for group in groups]
    optimizer = torch.optim.SGD(parameters)
    scheduler = make(optimizer)
    settings = {key: value for key, value in scheduler.state_dict().items() if key[0] != "_" and key != "last_epoch"}
    if all(saved.get(key) == value for key, value in settings.items()):
        return
    for _ in range(saved["last_epoch"]):
        optimizer.step()
        scheduler.step()
    saved.update(scheduler.state_dict())
    for group, replayed in zip(groups, optimizer.param_groups, strict=True):
        group["lr"] = replayed["lr"]


class UNetDistillation(Objective):
    """Base class of objectives that train a UNet to replace that of a frozen teacher. Subclasses are final.

    Args:
        teacher: The frozen teacher. It is not a submodule, and so neither trained nor part of a checkpoint.
        unet: The UNet to train, in float32 for every precision of the teacher.
        steps: Number of steps of the student's roll-outs.
        guided: Whether roll-outs use classifier-free guidance, so that both of its passes are distilled.
        **training: Arguments of `Objective`.

    Attributes:
        step_stride: Distance of the steps of the teacher's roll-outs that are trained on (`LatentSource`).
        student_solver: Solver of the student's roll-outs; None for the teacher's.
        num_unets: Number of UNets of the student's size that a checkpoint holds.
    """

    step_stride = 1
    student_solver: str | None = None
    num_unets = 1

    def __init__(
        self, teacher: Teacher, unet: UNet2DConditionModel, steps: int, guided: bool = True, **training: Any
    ) -> None:
        super().__init__(**training)
        self.unet = unet.train().requires_grad_(True)
        self.teacher, self.steps, self.guided = teacher, steps, guided

    @classmethod
    def check_teacher(cls, teacher: Teacher) -> Teacher:
        """Checks that the objective supports a teacher, and adapts the teacher where necessary.

        Args:
            teacher: The teacher.

        Returns:
            The teacher, possibly with another noise schedule.

        Raises:
            UserError: The objective does not support the teacher.
        """
        return teacher

    @classmethod
    @abstractmethod
    def init_student(cls, teacher: Teacher) -> UNet2DConditionModel:
        """Creates the UNet with which training starts.

        Args:
            teacher: The teacher.

        Returns:
            A UNet in float32, which shares no memory with the teacher's.
        """

    @classmethod
    def as_teacher(cls, teacher: Teacher, name: str, unet: UNet2DConditionModel) -> Teacher:
        """Returns the student as a teacher, without gradients.

        Args:
            teacher: The frozen teacher, with which the student shares all but the UNet.
            name: Name of the student.
            unet: The student's UNet.
        """
        return teacher.with_components(name, unet=unet)

    @classmethod
    @abstractmethod
    def unet_calls_per_example(cls, teacher: Teacher, guided: bool) -> tuple[int, int]:
        """Returns the number of UNet calls that the loss of one example takes.

        Args:
            teacher: The teacher.
            guided: Whether roll-outs are guided.

        Returns:
            Calls of the teacher's UNet, and of the UNet in training.
        """

    @abstractmethod
    def losses(self, batch: NoisyLatents, untrained: bool) -> tuple[Tensor, Tensor | None]:
        """Computes the loss of a batch.

        Args:
            batch: The noisy latents.
            untrained: Whether the loss of the UNet with which training started is needed, too.

        Returns:
            The loss in float32, and that of the UNet with which training started. The latter may be None if it is not
            needed.
        """

    def training_step(self, batch: NoisyLatents, batch_idx: int) -> Tensor:
        """Computes the loss of a batch; in every tenth batch also that of the UNet with which training started."""
        loss, untrained = self.losses(batch, untrained=batch_idx % 10 == 0)
        self.means.add(_figures(batch, loss, untrained))
        return loss

    def validation_step(self, batch: NoisyLatents) -> None:
        """Adds the figures of held-out examples."""
        self.validation_means.add(_figures(batch, *self.losses(batch, untrained=True)))


def _figures(batch: NoisyLatents, loss: Tensor, untrained: Tensor | None) -> dict[str, Figure]:
    """Returns the loss, and that of the UNet with which training started, as figures of every example."""
    losses = {"loss": loss} if untrained is None else {"loss": loss, "untrained": untrained}
    return {name: Figure(value.expand(len(batch))) for name, value in losses.items()}


def predict(unet: UNet2DConditionModel, latents: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """Runs a UNet in its own precision.

    Args:
        unet: The UNet.
        latents: Noisy latents, `batch × channels × height × width`.
        t: Timesteps, `batch`.
        condition: Condition of the batch.

    Returns:
        The prediction, of the shape of the latents and in the UNet's precision.
    """
    condition = condition.to(unet.dtype)
    return unet(latents.to(unet.dtype), t, condition.prompt_embeds, **condition.unet_kwargs).sample


@contextmanager
def frozen(device: torch.device) -> Iterator[None]:
    """Context manager for the teacher's computations: without gradients and without the autocast of training.

    Args:
        device: Device of the teacher.
    """
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def mean_square(student: Tensor, teacher: Tensor) -> Tensor:
    """Computes the mean squared error in float32.

    Args:
        student: Output of the UNet in training, in any precision.
        teacher: Output of the teacher, of the same shape.

    Returns:
        A scalar.
    """
    return (student.float() - teacher.float()).square().mean()
