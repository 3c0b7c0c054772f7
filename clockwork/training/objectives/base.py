"""What the objectives that make a teacher share: a UNet in training against the frozen teacher it will stand in for."""

from abc import abstractmethod
from typing import Any

from diffusers import UNet2DConditionModel
from pytorch_lightning import LightningModule
from torch import Tensor

from clockwork.teachers import Condition, Teacher
from clockwork.training.fit import adam
from clockwork.training.latents import States


class Tuning(LightningModule):
    """Holds the UNet in training and nothing frozen: so does its checkpoint. Subclasses are final.

    `steps`: of the student's roll-outs, which `progressive` halves; `epochs`: over which the learning rate falls.
    """

    every = 1  # which steps of the teacher's roll-outs it is asked at: `states.Visits`

    def __init__(
        self, teacher: Teacher, unet: UNet2DConditionModel, steps: int, learning_rate: float = 1e-4, epochs: int = 1
    ) -> None:
        super().__init__()
        self.unet = unet.train().requires_grad_(True)
        self.teacher = teacher  # no module, and so neither trained nor in a checkpoint
        self.steps, self.learning_rate, self.epochs = steps, learning_rate, epochs

    @classmethod
    def prepare(cls, teacher: Teacher) -> Teacher:
        """The teacher as this objective needs it; ValueError where it cannot be."""
        return teacher

    @classmethod
    @abstractmethod
    def begin(cls, teacher: Teacher) -> UNet2DConditionModel:
        """The UNet that training begins with, in single precision and sharing nothing with the teacher's."""

    @abstractmethod
    def losses(self, states: States, untrained: bool) -> tuple[Tensor, Tensor | None]:
        """The loss; and, where it is asked for, what it was for the UNet that training began with."""

    def training_step(self, states: States, number: int) -> Tensor:
        loss, untrained = self.losses(states, untrained=number % 10 == 0)
        size = len(states)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=True, batch_size=size)
        if untrained is not None:  # the loss earns the difference
            self.log("untrained", untrained, prog_bar=True, on_step=False, on_epoch=True, batch_size=size)
        return loss

    def configure_optimizers(self) -> Any:
        return adam(self.unet.parameters(), self.learning_rate, self.epochs, decay=True)


def answer(unet: UNet2DConditionModel, latents: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """What a UNet predicts, in its own precision."""
    condition = condition.to(unet.dtype)
    return unet(latents.to(unet.dtype), t, condition.tokens, **condition.unet).sample


def mean_square(ours: Tensor, theirs: Tensor) -> Tensor:
    """In single precision, whatever the teacher's."""
    return (ours.float() - theirs.float()).square().mean()
