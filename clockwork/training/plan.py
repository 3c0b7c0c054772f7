"""What a training will take, known before it starts: the teacher's passes, optimiser steps, FLOPs and memory."""

from dataclasses import dataclass

import torch
from torch import nn

from clockwork.adaptors import Adaptor
from clockwork.flops.cost import on_meta, step_flops
from clockwork.flops.counter import count_flops
from clockwork.sampling.sampler import Setup
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.examples import feature_shapes


@dataclass(frozen=True)
class Plan:
    """Of a whole training, over all processes; memory is one process's."""

    epochs: int
    rounds: int  # of generation and training, of the epoch that has most
    unet_passes: int  # the teacher's, to generate examples; each of guidance's two is one
    steps: int  # of the optimiser
    examples_seen: int
    teacher_flops: int
    training_flops: int  # forward and backward of what is trained
    examples_bytes: int  # of the largest set that is held at once
    disk_bytes: int  # checkpoints and the result

    def __str__(self) -> str:
        rows = [
            ("teacher passes", f"{self.unet_passes:,}", f"{self.unet_passes // self.epochs:,} per epoch"),
            ("optimiser steps", f"{self.steps:,}", f"{self.steps // self.epochs:,} per epoch"),
            ("teacher FLOPs", scaled(self.teacher_flops, "FLOPs"), ""),
            ("training FLOPs", scaled(self.training_flops, "FLOPs"), "forward and backward"),
            ("examples in memory", scaled(self.examples_bytes, "B", 1024), f"{self.rounds} sets per epoch"),
            ("disk", scaled(self.disk_bytes, "B", 1024), "checkpoints and the result"),
        ]
        return "\n".join(f"{name:20} {value:>16}  {note}".rstrip() for name, value, note in rows)


def scaled(number: float, unit: str, base: int = 1000) -> str:
    """A number in four digits with its prefix: `6.742 GB`, and with base 1024 `6.28 GiB`."""
    power = 0
    while number >= base and power < 7:
        number, power = number / base, power + 1
    prefix = ("", "k", "M", "G", "T", "P", "E", "Z")[power]
    return f"{number:.4g} {prefix}{'i' if base == 1024 and power else ''}{unit}"


def plan(
    data: OnlineDataModule, epochs: int, teacher_flops: int, example_flops: int, trained: nn.Module, ranks: int = 1
) -> Plan:
    """The plan of `epochs` epochs.

    Args:
        data: What trains.
        epochs: How many.
        teacher_flops: Of one of the teacher's passes at batch 1.
        example_flops: Of one training example, forward and backward.
        trained: What is trained: saved with Adam's two moments in two checkpoints, and once as the result.
        ranks: Processes that share the work.
    """
    rounds = [data.rounds(epoch, 0, ranks) for epoch in range(epochs)]
    batches = [batch for epoch in rounds for part in epoch for batch in part]
    passes = ranks * sum(len(batch.items) * batch.work.unet_passes for batch in batches)
    seen = ranks * data.repeats * sum(batch.examples for batch in batches)
    largest = max(sum(batch.examples for batch in part) for epoch in rounds for part in epoch)
    weights = sum(p.numel() * p.element_size() for p in trained.parameters())
    return Plan(
        epochs=epochs,
        rounds=max(map(len, rounds)),
        unet_passes=passes,
        steps=sum(data.num_steps(part) for epoch in rounds for part in epoch),
        examples_seen=seen,
        teacher_flops=passes * teacher_flops,
        training_flops=seen * example_flops,
        examples_bytes=largest * data.source.example_bytes(),
        disk_bytes=(2 * 3 + 1) * weights,
    )


def adaptor_plan(data: OnlineDataModule, setup: Setup, epochs: int, ranks: int = 1) -> Plan:
    """The plan of an adaptor's training; backward costs twice as much as forward."""
    assert setup.adaptor is not None
    full, _ = step_flops(setup)
    return plan(data, epochs, full.full, 3 * adaptor_flops(setup, setup.adaptor), setup.adaptor, ranks)


def adaptor_flops(setup: Setup, adaptor: Adaptor) -> int:
    """Of the adaptor alone on one example (convention `full`)."""
    (r_in, r_out, _), t_emb = feature_shapes(setup)
    with torch.device("meta"):
        inputs = [torch.empty(1, *shape) for shape in (r_in, r_out, t_emb, (adaptor.widths.text_emb,))]
    module = on_meta(adaptor)
    return count_flops(lambda: module(*inputs)).full
