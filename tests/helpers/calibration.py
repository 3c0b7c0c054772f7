"""Calibrations that are checked in a second way: random observations, and UNets whose low-res path is linear."""

from typing import Any

import torch
from helpers.models import small_teacher
from torch import Tensor

from clockwork.adaptors import Identity
from clockwork.data.prompts import Prompt
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.inputs import EmbeddedInputs
from clockwork.unet.split import HighResFeatures, SplitUNet

CAPTIONS = ("a red circle", "two blue squares", "a hat on a cat", "one star", "the sea", "a house", "snow", "a train")
PROMPTS = [Prompt(i, caption) for i, caption in enumerate(CAPTIONS)]


def random_observations(
    num_branches: int, count: int, inputs: int, outputs: int, noise: float = 0.5
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Inputs, targets and `r_out` of each half: halves that resemble each other, targets that are partly linear."""
    rng = torch.Generator().manual_seed(count + inputs)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    common = normal(count, inputs) + 0.3
    x = [common + 0.5 * normal(count, inputs) for _ in range(num_branches)]
    y = [part @ normal(inputs, outputs) + noise * normal(count, outputs) for part in x]
    return x, y, [normal(count, outputs) + part for part in y]


def add_ones(x: Tensor) -> Tensor:
    """The inputs with the constant."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def weighted_rows(x: list[Tensor], y: list[Tensor], guidance: float, guided_weight: float) -> tuple[Tensor, Tensor]:
    """The rows of the least-squares problem: each branch's, and those of all after guidance, with their weight."""
    x = [add_ones(part) for part in x]
    if len(x) == 1:
        return x[0], y[0]
    c = weights_of(len(x), guidance)
    guided = torch.cat([c_i * part for c_i, part in zip(c, x, strict=True)], 1)
    target = torch.stack([c_i * part for c_i, part in zip(c, y, strict=True)]).sum(0)
    rows = [*torch.block_diag(*x).split(len(x[0])), guided_weight**0.5 * guided]
    return torch.cat(rows), torch.cat([*y, guided_weight**0.5 * target])


def weights_of(num_branches: int, guidance: float) -> tuple[float, ...]:
    """Weights of the branches in the guided prediction; three are those of InstructPix2Pix, with 1.5 for the image."""
    if num_branches == 3:
        return guidance, 1.5 - guidance, 1 - 1.5
    return (1.0,) if num_branches == 1 else (1 - guidance, guidance)


def small_sampler(
    shape: str = "sd15",
    cut: str = "stage1",
    schedule: str = "clock2",
    solver: str = "dpm++",
    steps: int = 4,
    guidance: float = 3.0,
    teacher: Teacher | None = None,
    split: type[SplitUNet] = SplitUNet,
    **options: Any,
) -> Sampler:
    """An operating point of a small teacher, with the identity adaptor."""
    teacher = teacher or small_teacher(shape)
    identity = Identity(feature_dims(teacher, cut))
    divided = split(teacher.unet, cut, **options)
    return Sampler(teacher, divided, Schedule.parse(schedule), solver, steps, guidance, identity, "identity")


class LinearInFeatures(SplitUNet):
    """Its low-res path is a matrix at each position of `r_in`: one per timestep and half of guidance."""

    def __init__(self, *args: Any, negative: Tensor, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.negative = negative  # the negative prompt's text features, by which its half is recognised
        self.matrices: list[Tensor] = []  # of each call, `num_branches × outputs × inputs`

    def low(self, high: HighResFeatures, embedded: EmbeddedInputs) -> Tensor:
        """The matrix of the timestep, applied to `r_in`."""
        shape = 2, 16, high.r_in.shape[1]
        rng = torch.Generator().manual_seed(0)
        base, slope = (torch.randn(shape, generator=rng) * 0.3 for _ in range(2))
        matrices = base + slope * embedded.t_emb[0, 0].tanh()
        text = embedded.encoder_hidden_states
        half = torch.tensor([int(not torch.allclose(one, self.negative[0], atol=1e-5)) for one in text])
        self.matrices.append(matrices)
        return (matrices[half] @ high.r_in.flatten(2)).unflatten(2, high.r_in.shape[2:])


class LinearInTime(SplitUNet):
    """The output of its low-res path moves along a straight line from step to step: `first + clock × change`.

    Both fields belong to the prompt. `clocks` has the clock of each call.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clocks: list[float] = []

    def low(self, high: HighResFeatures, embedded: EmbeddedInputs) -> Tensor:
        """The fields of each prompt."""
        size = high.r_in.shape[2:]
        text = embedded.encoder_hidden_states.mean(1)
        rng = torch.Generator().manual_seed(0)
        first, change = (
            (text @ torch.randn(text.shape[1], 16 * size.numel(), generator=rng)).unflatten(1, (16, *size))
            for _ in range(2)
        )
        self.clocks.append(float(embedded.t_emb[0, 0].tanh()))
        return 0.1 * (first + self.clocks[-1] * change)
