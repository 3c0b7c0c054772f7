"""The base class of rivals: a package's method, attached to a copy of a UNet."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from clockwork.errors import UserError


@dataclass(frozen=True)
class Rival(ABC):
    """A method of another package that makes a UNet cheaper. Its settings are the fields of the subclass.

    The method itself is the package's own code. It is attached to a copy of the UNet that shares the weights, so that
    the teacher's modules are never touched, and nothing has to be undone afterwards.

    Attributes:
        package: Name of the distribution that implements the method.
    """

    package: ClassVar[str]

    @abstractmethod
    def attach(self, unet: UNet2DConditionModel, timesteps: Tensor) -> Callable[[], None]:
        """Changes a UNet.

        Args:
            unet: The UNet to change, which is a copy. It is called as by diffusers' pipelines: sample and timestep are
                positional, the text features are `encoder_hidden_states`.
            timesteps: The solver's timesteps of a roll-out, in order.

        Returns:
            A function without arguments that discards what the method keeps from earlier steps.

        Raises:
            UserError: If the method does not fit this UNet.
        """

    def check_guidance(self, guided: bool) -> None:
        """Raises a `UserError` if the method does not fit roll-outs with or without guidance.

        Args:
            guided: Whether the UNet's batch holds unconditional and conditional examples.
        """
        del guided

    def identity(self) -> dict[str, Any]:
        """Returns everything that changes an image, as plain data: method, settings, and version of the package."""
        return {"method": type(self).__name__, **vars(self), "version": version(self.package)}


def shared_copy(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """Copies the modules of a UNet, but not its weights.

    Args:
        unet: The UNet.

    Returns:
        A UNet with modules of its own, whose parameters and buffers are those of `unet`.
    """
    return copy.deepcopy(unet, {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())})


class Timestep:
    """Records the timestep of a UNet's current call, for methods that ask for it.

    Args:
        unet: The UNet, called with the timestep as second positional argument.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.value = 0.0
        unet.register_forward_pre_hook(self._record)

    def __call__(self) -> float:
        """Returns the timestep."""
        return self.value

    def _record(self, unet: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        """Reads the timestep of a call."""
        self.value = float(arguments[1])


def at_least_one(name: str, value: int | None) -> None:
    """Raises a `UserError` if a setting is below 1.

    Args:
        name: Name of the setting.
        value: Its value; None is allowed.
    """
    if value is not None and value < 1:
        raise UserError(f"{name}={value} is not allowed: use a number of at least 1")
