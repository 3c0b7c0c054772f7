"""What a training will take, known before it starts: the teacher's passes, optimiser steps, FLOPs and memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from clockwork.adaptors import Adaptor
from clockwork.flops.cost import on_meta, step_flops
from clockwork.flops.counter import count_flops
from clockwork.sampling.sampler import Sampler
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.examples import feature_shapes
from clockwork.training.objectives.base import UNetDistillation

BACKWARD = 2  # costs as much as so many forward passes


@dataclass(frozen=True)
class Plan:
    """Of a whole training, without validation and sample images. Memory is one process's, all else is the sum of all
    processes. FLOPs are in the convention `full` (docs/flops.md)."""

    epochs: int
    sets: int  # of examples, of the epoch that has most: more than one where they do not fit at once
    unet_calls: int  # the teacher's; each of guidance's two is one
    steps: int  # of the optimiser
    teacher_flops: int
    training_flops: int  # forward and backward of what is trained
    examples_bytes: int  # of the largest set
    checkpoint_bytes: int  # on disk
    result_bytes: int  # on disk

    def __str__(self) -> str:
        rows = [
            ("teacher passes", f"{self.unet_calls:,}", f"{self.unet_calls // self.epochs:,} per epoch"),
            ("optimiser steps", f"{self.steps:,}", f"{self.steps // self.epochs:,} per epoch"),
            ("teacher FLOPs", with_prefix(self.teacher_flops, "FLOPs"), ""),
            ("training FLOPs", with_prefix(self.training_flops, "FLOPs"), "forward and backward"),
            ("examples in memory", with_prefix(self.examples_bytes, "B", 1024), _sets_per_epoch(self.sets)),
            ("disk", with_prefix(self.checkpoint_bytes + self.result_bytes, "B", 1024), "checkpoints and the result"),
        ]
        return "\n".join(f"{name:20} {value:>16}  {note}".rstrip() for name, value, note in rows)


@dataclass(frozen=True)
class TrainingCost:
    """Of one training example, and of what is trained."""

    teacher_call_flops: int  # of one pass at batch 1
    unet_calls_per_loss: int  # the teacher's, each time the example is seen
    flops: int  # forward and backward of what is trained
    weights_bytes: int  # of what is trained
    result_bytes: int


def adaptor_plan(sampler: Sampler, data: OnlineDataModule, epochs: int, ranks: int = 1, ema: bool = False) -> Plan:
    """The plan of an adaptor's training.

    Args:
        sampler: The operating point, with the adaptor.
        data: Its examples.
        epochs: How many.
        ranks: Processes that share the work.
        ema: Whether an average of the weights is kept beside them.
    """
    assert sampler.adaptor is not None
    full, _ = step_flops(sampler)
    weights = weights_bytes(sampler.adaptor)
    cost = TrainingCost(full.full, 0, (1 + BACKWARD) * adaptor_flops(sampler, sampler.adaptor), weights, weights)
    return plan(data, cost, epochs, ranks, ema)


def unet_plan(
    sampler: Sampler,
    data: OnlineDataModule,
    objective: type[UNetDistillation],
    student: Sampler,
    guided: bool,
    epochs: int,
    ranks: int = 1,
    ema: bool = False,
) -> Plan:
    """The plan of a UNet's training.

    Args:
        sampler: The frozen teacher's.
        data: The latents.
        objective: Says which passes its loss takes.
        student: The sampler with the UNet in training.
        guided: Whether roll-outs are guided.
        epochs, ranks, ema: As in `adaptor_plan`.
    """
    frozen, trained = (step_flops(which)[0].full for which in (sampler, student))
    teacher_passes, student_passes = objective.unet_calls_per_example(sampler.teacher, guided)
    weights = weights_bytes(student.teacher.unet)
    modules = student.teacher.pipe.components.values()
    result = sum(weights_bytes(module) for module in modules if isinstance(module, nn.Module))
    cost = TrainingCost(frozen, teacher_passes, (1 + BACKWARD) * student_passes * trained, weights, result)
    return plan(data, cost, epochs, ranks, ema)


def plan(data: OnlineDataModule, cost: TrainingCost, epochs: int, ranks: int = 1, ema: bool = False) -> Plan:
    """The plan of `epochs` epochs. A checkpoint holds the weights, Adam's two moments and the average; there are two
    where training is validated."""
    rounds = [data.rounds(epoch, 0, ranks) for epoch in range(epochs)]
    sets = [part for epoch in rounds for part in epoch]
    examples = [sum(batch.examples for batch in part) for part in sets]
    seen = ranks * data.repeats_per_epoch * sum(examples)
    generated = ranks * sum(len(batch.items) * batch.work.unet_calls for part in sets for batch in part)
    passes = generated + cost.unet_calls_per_loss * seen
    checkpoints = 2 if data.validation else 1
    return Plan(
        epochs=epochs,
        sets=max(map(len, rounds)),
        unet_calls=passes,
        steps=sum(map(data.num_steps, sets)),
        teacher_flops=passes * cost.teacher_call_flops,
        training_flops=seen * cost.flops,
        examples_bytes=max(examples) * data.source.example_bytes(),
        checkpoint_bytes=checkpoints * (4 if ema else 3) * cost.weights_bytes,
        result_bytes=cost.result_bytes,
    )


def total(plans: Sequence[Plan]) -> Plan:
    """Of several trainings, one after the other, of which the last one's result is kept."""
    names = ("epochs", "unet_calls", "steps", "teacher_flops", "training_flops", "checkpoint_bytes")
    sums = {name: sum(getattr(one, name) for one in plans) for name in names}
    largest = {name: max(getattr(one, name) for one in plans) for name in ("sets", "examples_bytes", "result_bytes")}
    return Plan(**sums, **largest)


def adaptor_flops(sampler: Sampler, adaptor: Adaptor) -> int:
    """Of the adaptor alone on one example, forward."""
    (r_in, r_out, _), t_emb = feature_shapes(sampler)
    with torch.device("meta"):
        inputs = [torch.empty(1, *shape) for shape in (r_in, r_out, t_emb, (adaptor.dims.text_emb,))]
    module = on_meta(adaptor)
    return count_flops(lambda: module(*inputs)).full


def weights_bytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def with_prefix(number: float, unit: str, base: int = 1000) -> str:
    """A number in four digits with its prefix: `6.742 GB`, and with base 1024 `6.279 GiB`."""
    power = 0
    while number >= base and power < 7:
        number, power = number / base, power + 1
    prefix = ("", "k", "M", "G", "T", "P", "E", "Z")[power]
    return f"{number:.4g} {prefix}{'i' if base == 1024 and power else ''}{unit}"


def _sets_per_epoch(number: int) -> str:
    return "one set per epoch" if number == 1 else f"{number} sets per epoch, one after the other"
