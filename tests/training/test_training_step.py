"""A training step: its figures, its loss and gradient, and that it waits for nothing."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from helpers.training_loop import BATCHES, QUIET, STEPS, VALIDATED, Examples, module, run
from pytorch_lightning import Callback, Trainer
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clockwork.adaptors import FeatureDims, ResNet
from clockwork.metrics.similarity import distance
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.callbacks import ProgressBar
from clockwork.training.epoch_means import EpochMeans, Figure
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import AdaptorDistillation, guided_distance


def test_figures_are_means_over_all_examples_of_an_epoch(tmp_path: Path) -> None:
    """At learning rate 0, so that every example meets the same adaptor, which begins as the identity."""
    figures = run(tmp_path, 1, {"optimizer": partial(torch.optim.SGD, lr=0.0)}, **VALIDATED).figures
    whole = AdaptorExample.join(BATCHES)
    error = distance(whole.r_out_prev, whole.r_out)
    relative = error / distance(torch.zeros_like(whole.r_out), whole.r_out)
    guided = torch.cat([guided_distance(b.r_out_prev - b.r_out, 3.0) for b in BATCHES])
    expected = {"loss": error, "identity": error, "guided": guided, "guided_identity": guided}
    for step in STEPS:
        expected |= {f"relative_l2{kind}/step{step}": relative[whole.step == step] for kind in ("", "_identity")}
    assert {name for name in figures if not name.startswith("val/")} == set(expected)
    for name, values in expected.items():
        assert figures[name] == pytest.approx(values.mean().item(), rel=1e-5), name
    held_out = list(Examples([]).val_dataloader())
    guided = [guided_distance(b.r_out_prev - b.r_out, 3.0) / guided_distance(b.r_out, 3.0) for b in held_out]
    assert figures["val/guided_relative_l2"] == pytest.approx(torch.cat(guided).mean().item(), rel=1e-5)
    assert set(figures) >= {"val/loss", "val/identity", "val/guided_relative_l2_identity", "val/relative_l2/step4"}


WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "_unique2", "unique_dim", "equal", "masked_select", "_to_copy"}


class Waits(TorchDispatchMode):
    """Counts what a GPU would have to be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        masks = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if masks or (name in WAITS and (name != "_to_copy" or "device" in (kwargs or {}))):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


class Watch(Callback):
    """Opens `Waits` from the second batch of an epoch to its last."""

    def __init__(self) -> None:
        self.waits = Waits()

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, number: int) -> None:
        if number == 1:
            self.waits.__enter__()
        elif number == len(BATCHES) - 1:
            self.waits.__exit__(None, None, None)


@pytest.mark.parametrize("guided", [0.0, 1.0])
def test_a_training_step_waits_for_nothing(tmp_path: Path, guided: float) -> None:
    """With clipping and averaged weights; plain gradient descent, since Adam counts its steps in tensors on the CPU."""
    made, watch = module(guided=guided), Watch()
    options = {**QUIET, "enable_progress_bar": True, "gradient_clip_val": 1.0}
    fit(made, tmp_path, Examples(BATCHES), [watch], max_epochs=1, ema=0.9, **options)
    assert watch.waits.seen == []
    with Waits() as waits:  # it would see one
        float(made.adaptor.up.bias[0].detach())
    assert waits.seen


def test_a_training_step_on_a_gpu_reads_nothing_back() -> None:
    """At the size of SD v1.5 with a float16 teacher, on tensors that exist on `cuda:0` alone: reading one raises. What
    Lightning and the callbacks do around the step, by hand."""
    with FakeTensorMode(), torch.device("cuda:0"):
        half = partial(torch.empty, dtype=torch.float16)
        number = torch.empty(16, dtype=torch.long)
        features = [half(16, width, 32, 32) for width in (320, 640, 640)]
        examples = AdaptorExample(*features[:2], half(16, 1280), torch.empty(16, 1024), features[2], number, number)
        made = AdaptorDistillation(ResNet(FeatureDims(320, 640, 1280, 1024)), STEPS, guidance=7.5, guided=1.0)
        optimizer, average = made.configure_optimizers(), EMAModel(made.parameters(), foreach=True)
        for _ in range(2):
            loss = made.training_step(examples)
            for weight in made.parameters():
                weight.grad = torch.empty_like(weight)
            watched = torch.stack([loss.detach(), torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)]).isfinite()
            optimizer.step()
            average.step(made.parameters())
        made.validation_step(examples)
        assert loss.dtype == torch.float32 and {x.device.type for x in (loss, watched)} == {"cuda"}
        with pytest.raises(DataDependentOutputException):
            made.means.read()


def test_the_progress_bar_shows_the_epochs_means(tmp_path: Path) -> None:
    made = module()
    trainer = fit(made, tmp_path, Examples(BATCHES), max_epochs=1, **{**QUIET, "enable_progress_bar": True})
    shown = ProgressBar().get_metrics(trainer, made)
    assert shown["loss"] == pytest.approx(made.figures["loss"]) and "relative_l2/step2" not in shown


def test_the_loss_is_computed_in_float32(tmp_path: Path) -> None:
    """`trainer.precision` lowers the precision of the adaptor's layers, not the weights' and not the loss's."""
    losses: list[Tensor] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
            losses.append(outputs["loss"])

    made = module()
    seen: list[torch.dtype] = []
    made.adaptor.down.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    fit(made, tmp_path, Examples(BATCHES), [Losses()], max_epochs=1, precision="bf16-mixed", **QUIET)
    assert set(seen) == {torch.bfloat16} and made.adaptor.dtype == torch.float32
    assert {loss.dtype for loss in losses} == {torch.float32}
    assert {float(loss) for loss in losses} != {float(loss.bfloat16()) for loss in losses}


def test_means_are_over_the_examples_that_count() -> None:
    means = EpochMeans()
    values = torch.tensor([1.0, 2.0, 4.0])
    means.add({"a": Figure(values), "b": Figure(values, torch.tensor([True, False, True]))})
    means.add({"a": Figure(torch.tensor([9.0])), "b": Figure(torch.tensor([float("nan")]), torch.tensor([False]))})
    means.add({"a": Figure(torch.tensor([4.0]))})
    assert means.read() == {"a": (4.0, 5), "b": (2.5, 2)}


def test_nothing_is_learnt_where_estimate_and_target_are_equal() -> None:
    """The distance's gradient is 0 there; elsewhere value and gradient are those of the plain root."""
    b = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    a = b + torch.tensor([0.0, 1e-3, 1.0])[:, None, None] * torch.randn_like(b)
    a.requires_grad_(True)
    ours, plain = distance(a, b), (a - b).flatten(1).square().mean(1).sqrt()
    assert torch.equal(ours, plain)
    (gradient,), (expected,) = (torch.autograd.grad(x.sum(), a) for x in (ours, plain))
    assert torch.equal(gradient[1:], expected[1:]) and not gradient[0].any() and expected[0].isnan().all()
    assert distance(torch.full((1, 2), float("nan")), torch.zeros(1, 2)).isnan()
