"""Cost of a training, computed before it starts: UNet calls of the teacher, optimiser steps, FLOPs and memory."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from clockwork.adaptors import Adaptor
from clockwork.flops.cost import image_flops, on_meta, step_flops, step_parts
from clockwork.io.units import with_prefix
from clockwork.sampling.sampler import Sampler
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.objectives.base import UNetDistillation

BACKWARD = 2  # cost of a backward pass in forward passes


@dataclass(frozen=True)
class Plan:
    """Cost of a training, without validation and sample images.

    `examples_bytes` is per process; all other numbers are sums over the processes. FLOPs are in the convention `full`
    (docs/flops.md).

    Attributes:
        epochs: Number of epochs.
        rounds: Largest number of rounds of an epoch; more than one if the examples of an epoch do not fit into memory.
        unet_calls: UNet calls of the teacher at batch 1; guidance counts as two.
        steps: Optimiser steps.
        teacher_flops: FLOPs of the teacher's UNet calls.
        training_flops: FLOPs of forward and backward passes of the module in training.
        examples_bytes: Memory of the examples of the largest round.
        checkpoint_bytes: Checkpoints on disk.
        result_bytes: The trained adaptor or pipeline on disk.
    """

    epochs: int
    rounds: int
    unet_calls: int
    steps: int
    teacher_flops: int
    training_flops: int
    examples_bytes: int
    checkpoint_bytes: int
    result_bytes: int

    def __str__(self) -> str:
        """Formats the plan as a table of label, value and note."""
        rows = [
            ("teacher passes", f"{self.unet_calls:,}", f"{self.unet_calls // self.epochs:,} per epoch"),
            ("optimiser steps", f"{self.steps:,}", f"{self.steps // self.epochs:,} per epoch"),
            ("teacher FLOPs", with_prefix(self.teacher_flops, "FLOPs"), ""),
            ("training FLOPs", with_prefix(self.training_flops, "FLOPs"), "forward and backward"),
            ("examples in memory", with_prefix(self.examples_bytes, "B", 1024), _rounds_per_epoch(self.rounds)),
            ("disk", with_prefix(self.checkpoint_bytes + self.result_bytes, "B", 1024), "checkpoints and the result"),
        ]
        return "\n".join(f"{name:20} {value:>16}  {note}".rstrip() for name, value, note in rows)


@dataclass(frozen=True)
class TrainingCost:
    """Cost of one training example, and sizes of the module in training.

    Attributes:
        teacher_call_flops: FLOPs of a UNet call of the teacher at batch 1.
        unet_calls_per_loss: UNet calls of the teacher each time that the loss of the example is computed.
        flops: FLOPs of forward and backward passes of the module in training, per loss.
        weights_bytes: Weights of the module in training.
        trained_bytes: Those of them that are trained, for which the optimiser has two moments.
        result_bytes: The trained adaptor or pipeline on disk.
    """

    teacher_call_flops: int
    unet_calls_per_loss: int
    flops: int
    weights_bytes: int
    trained_bytes: int
    result_bytes: int


def adaptor_plan(
    sampler: Sampler,
    data: OnlineDataModule,
    epochs: int,
    world_size: int = 1,
    ema: bool = False,
    output_loss: bool = False,
    through_rollout: bool = False,
) -> Plan:
    """Plans the training of an adaptor.

    Args:
        sampler: The operating point, with the adaptor.
        data: The examples.
        epochs: Number of epochs.
        world_size: Number of processes.
        ema: Whether there is a moving average of the weights.
        output_loss: Whether the loss runs the kept layers of the UNet.
        through_rollout: Whether the loss runs the whole clocked roll-out.

    Returns:
        The plan.
    """
    assert sampler.adaptor is not None
    parts, weights = step_parts(sampler), weights_bytes(sampler.adaptor)
    trained = weights_bytes(sampler.adaptor, trained_only=True)
    training_flops = (1 + BACKWARD) * adaptor_flops(sampler, sampler.adaptor)
    if output_loss:  # the kept layers on the target, and the kept up layers on the estimate, forward and backward
        training_flops += parts.high_res.full + 2 * parts.high_out.full
    if through_rollout:  # forward, and backward to the first adaptor step
        before = min(sampler.schedule.adaptor_steps(sampler.num_unet_calls)) - 1
        calls_per_step = sampler.teacher.unet_calls_per_step(sampler.guidance)
        training_flops = 2 * image_flops(sampler).full - before * calls_per_step * parts.full_pass.full
    cost = TrainingCost(parts.full_pass.full, 0, training_flops, weights, trained, weights)
    return plan(data, cost, epochs, world_size, ema)


def unet_plan(
    sampler: Sampler,
    data: OnlineDataModule,
    objective: type[UNetDistillation],
    student: Sampler,
    guided: bool,
    epochs: int,
    world_size: int = 1,
    ema: bool = False,
) -> Plan:
    """Plans the training of a UNet.

    Args:
        sampler: Sampler with the frozen teacher.
        data: The latents.
        objective: Class of the objective, which knows the number of UNet calls of its loss.
        student: Sampler with the UNet in training.
        guided: Whether roll-outs are guided.
        epochs: Number of epochs.
        world_size: Number of processes.
        ema: Whether there is a moving average of the weights.

    Returns:
        The plan.
    """
    teacher_flops, student_flops = (step_flops(each)[0].full for each in (sampler, student))
    teacher_calls, student_calls = objective.unet_calls_per_example(sampler.teacher, guided)
    weights = weights_bytes(student.teacher.unet)
    modules = student.teacher.pipe.components.values()
    result = sum(weights_bytes(module) for module in modules if isinstance(module, nn.Module))
    training_flops = (1 + BACKWARD) * student_calls * student_flops
    held = objective.num_unets * weights
    cost = TrainingCost(teacher_flops, teacher_calls, training_flops, held, weights, result)
    return plan(data, cost, epochs, world_size, ema)


def plan(data: OnlineDataModule, cost: TrainingCost, epochs: int, world_size: int = 1, ema: bool = False) -> Plan:
    """Adds up the cost of all epochs.

    Args:
        data: The data module.
        cost: Cost of one example.
        epochs: Number of epochs.
        world_size: Number of processes.
        ema: Whether there is a moving average of the weights.

    Returns:
        The plan. A checkpoint holds the weights, Adam's two moments and the moving average, if there is one. There are
        the last, after several epochs the one before, and with validation the best.
    """
    rounds_by_epoch = [data.rounds(epoch, 0, world_size) for epoch in range(epochs)]
    rounds = [batches for epoch_rounds in rounds_by_epoch for batches in epoch_rounds]
    examples = [sum(batch.examples for batch in batches) for batches in rounds]
    losses = world_size * data.repeats_per_epoch * sum(examples)
    generation_calls = sum(len(batch.items) * batch.work.unet_calls for batches in rounds for batch in batches)
    unet_calls = world_size * generation_calls + cost.unet_calls_per_loss * losses
    checkpoints = (2 if data.validation else 1) + (epochs > 1)
    return Plan(
        epochs=epochs,
        rounds=max(map(len, rounds_by_epoch)),
        unet_calls=unet_calls,
        steps=sum(map(data.num_steps, rounds)),
        teacher_flops=unet_calls * cost.teacher_call_flops,
        training_flops=losses * cost.flops,
        examples_bytes=max(examples) * data.source.example_bytes(),
        checkpoint_bytes=checkpoints * ((2 if ema else 1) * cost.weights_bytes + 2 * cost.trained_bytes),
        result_bytes=cost.result_bytes,
    )


def total(plans: Sequence[Plan]) -> Plan:
    """Combines the plans of trainings that run one after the other, of which the last result is kept.

    Args:
        plans: One plan or more.

    Returns:
        The plan of all of them.
    """
    summed = ("epochs", "unet_calls", "steps", "teacher_flops", "training_flops", "checkpoint_bytes")
    largest = ("rounds", "examples_bytes", "result_bytes")
    sums = {name: sum(getattr(each, name) for each in plans) for name in summed}
    return Plan(**sums, **{name: max(getattr(each, name) for each in plans) for name in largest})


def adaptor_flops(sampler: Sampler, adaptor: Adaptor) -> int:
    """Counts the FLOPs of an adaptor's forward pass on one example.

    Args:
        sampler: Sampler with the teacher and the cut.
        adaptor: The adaptor.

    Returns:
        FLOPs in the convention `full`.
    """
    return step_parts(sampler).adaptor(on_meta(adaptor)).full


def weights_bytes(module: nn.Module, trained_only: bool = False) -> int:
    """Returns the memory of a module's parameters in bytes.

    Args:
        module: The module.
        trained_only: Whether to leave out those that are frozen.
    """
    parameters = (p for p in module.parameters() if p.requires_grad or not trained_only)
    return sum(p.numel() * p.element_size() for p in parameters)


def _rounds_per_epoch(number: int) -> str:
    """Describes the rounds of an epoch in words."""
    return "one round per epoch" if number == 1 else f"{number} rounds per epoch, one after the other"
