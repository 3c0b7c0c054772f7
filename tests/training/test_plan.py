"""What a training says it will take, against what a tiny one took."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import QUICK_TRAINING, config, run
from helpers.linear import linear_sampler
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clockwork.adaptors import save_adaptor
from clockwork.experiments import train
from clockwork.experiments.train import train_adaptor, train_teacher
from clockwork.io.units import with_prefix
from clockwork.teachers import Teacher, load_teacher
from clockwork.training.datamodule import GIB, OnlineDataModule
from clockwork.training.plan import Plan, total

CASES: dict[str, list[str]] = {
    "adaptor": ["steps=4", "epochs=2", "repeats_per_epoch=2", "max_examples_gb=0.0003"],
    "corrected": ["steps=4", "rollout=adaptor", "output_loss=1"],
    "latents": ["steps=4", "loss=latents"],
    "noised": ["data=noised", "images.count=100", "epochs=2", "steps=4"],
    "recover": ["objective=recover", "teacher=miniature_sd", "step_counts=[2,3]"],
    "guidance": ["objective=guidance", "teacher=miniature_sd", "step_counts=[2,3]"],
    "progressive": ["objective=progressive", "teacher=miniature_sd", "teacher.guidance=1", "start=4", "end=1"],
}
SMALL = [
    "prompts_per_epoch=3",
    "generation_batch_size=2",
    "batch_size=4",
    "val_prompts=0",
]


class Taken:
    """What a command planned, and what it then took."""

    def __init__(self) -> None:
        self.plans: list[Plan] = []
        self.unet_calls = self.steps = self.examples_bytes = 0

    def count_pass(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.device.type != "meta":
            self.unet_calls += len(output)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Iterator[Taken]:
    """Each pass of a teacher's UNet runs its first convolution once."""
    seen = Taken()

    def load(*args: Any, **kwargs: Any) -> Teacher:
        teacher = load_teacher(*args, **kwargs)
        teacher.unet.conv_in.register_forward_hook(seen.count_pass)
        return teacher

    fit = train.fit

    def fitted(module: Any, output: Path, data: OnlineDataModule, *args: Any, **kwargs: Any) -> Any:
        trainer = fit(module, output, data, *args, **kwargs)
        seen.steps += trainer.global_step
        values = [value for value in data.store._values.values() if isinstance(value, Tensor)]
        seen.examples_bytes = max(seen.examples_bytes, sum(x.numel() * x.element_size() for x in values))
        return trainer

    monkeypatch.setattr("clockwork.teachers.load_teacher", load)
    monkeypatch.setattr(train, "fit", fitted)
    monkeypatch.setattr(train, "_print_plan", lambda *plans: seen.plans.append(total(plans)))
    yield seen


def linear_folder(folder: Path) -> Path:
    sampler = linear_sampler(load_teacher("miniature", guidance=3.0, device="cpu"))
    assert sampler.adaptor is not None
    save_adaptor(folder, sampler.adaptor, sampler.point)
    return folder


QUICK = ("adaptor", "latents")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_plan_is_what_is_then_taken(name: str, taken: Taken, tmp_path: Path) -> None:
    base = [f"base={linear_folder(tmp_path / 'base')}"] if name in ("corrected", "latents") else []
    cfg = config(tmp_path / "run", *SMALL, *CASES[name], *base)
    counted = FlopCounterMode(display=False)
    with counted:
        (train_adaptor if cfg.objective is None else train_teacher)(cfg)
    (plan,) = taken.plans
    assert (plan.steps, plan.examples_bytes) == (taken.steps, taken.examples_bytes)
    files = [file for file in (tmp_path / "run").rglob("*") if file.suffix in (".ckpt", ".safetensors")]
    assert plan.checkpoint_bytes + plan.result_bytes == pytest.approx(
        sum(file.stat().st_size for file in files), rel=0.1
    )
    if name == "recover":  # every tenth step looks at the untrained UNet, too, which shares the teacher's first layer
        assert plan.unet_calls <= taken.unet_calls <= 1.3 * plan.unet_calls
    elif name == "latents":  # the loss runs a roll-out of four steps, with both halves, of each of three prompts
        assert plan.unet_calls + 4 * 2 * 3 * cfg.repeats_per_epoch == taken.unet_calls
    elif name == "progressive":  # the second stage's teacher is the first one's student
        assert plan.unet_calls > taken.unet_calls > plan.unet_calls / 2
    elif name == "corrected":  # the loss runs the first layer again, on both halves of two steps of three prompts
        assert plan.unet_calls + 2 * 2 * 3 * cfg.repeats_per_epoch == taken.unet_calls
    else:
        assert plan.unet_calls == taken.unet_calls
    # What is trained is not asked for the gradient of its input; text encoders are not in the plan.
    assert 0.8 < counted.get_total_flops() / (plan.teacher_flops + plan.training_flops) < 1.25
    assert (plan.rounds > 1) == (name == "adaptor")


def test_a_command_prints_its_plan(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    few = [*QUICK_TRAINING, "prompts_per_epoch=4", "steps=4"]
    run(monkeypatch, "train", *few, "batch_size=4", "+experiment=paper", "epochs=1", f"output={tmp_path}")
    lines = capsys.readouterr().out.splitlines()
    names = [line[:20].strip() for line in lines]
    assert names[:3] == ["teacher passes", "optimiser steps", "teacher FLOPs"]
    assert lines[0].split()[2:4] == ["32", "32"] and lines[1].split()[2] == "4"


def test_plans_of_stages_add_up() -> None:
    one = Plan(**{f.name: i for i, f in enumerate(fields(Plan), 1)})
    both = total([one, replace(one, examples_bytes=100, rounds=1)])
    assert (both.epochs, both.unet_calls, both.steps, both.checkpoint_bytes) == (2, 6, 8, 16)
    assert (both.rounds, both.examples_bytes, both.result_bytes) == (2, 100, one.result_bytes)


def test_prefixes() -> None:
    assert (
        with_prefix(999, "B") == "999 B"
        and with_prefix(1000, "B") == "1 kB"
        and with_prefix(6.742e9, "B") == "6.742 GB"
    )
    assert with_prefix(6.28 * GIB, "B", 1024) == "6.28 GiB" and with_prefix(677_761e9, "FLOPs") == "677.8 TFLOPs"
