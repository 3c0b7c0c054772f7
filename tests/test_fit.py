"""The training loop: figures, averaged weights, the weights that are kept, stops; on random features, in a second."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from pytorch_lightning import Callback, LightningDataModule, Trainer, seed_everything
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from clockwork.adaptors import ResNet, Widths
from clockwork.errors import UserError
from clockwork.metrics.similarity import distance
from clockwork.training.callbacks import ProgressBar, StopWhenNotFinite
from clockwork.training.epoch_means import EpochMeans, Figure
from clockwork.training.examples import AdaptorExample
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import Distillation, guided_distance

QUIET = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu", "devices": 1}
SGD = partial(torch.optim.SGD, lr=0.05)
STEPS = (2, 4)


def batch(seed: int, pairs: int = 4) -> AdaptorExample:
    """Negative halves, then the prompts'; of steps 2 and 4 in turn."""
    rng = torch.Generator().manual_seed(seed)

    def random(*size: int) -> Tensor:
        return torch.randn(2 * pairs, *size, generator=rng)

    r_in, before = random(4, 6, 6), random(6, 6, 6)
    step, half = torch.tensor(STEPS).repeat(pairs), torch.arange(2).repeat_interleave(pairs)
    return AdaptorExample(r_in, before, random(8), random(5), before + 0.3 * r_in.mean(1, keepdim=True), step, half)


class Examples(LightningDataModule):
    def __init__(self, batches: Sequence[AdaptorExample]) -> None:
        super().__init__()
        self.batches = batches

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.batches, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        return DataLoader([batch(100), batch(101, pairs=2)], batch_size=None)


def module(**options: Any) -> Distillation:
    seed_everything(0, verbose=False)
    adaptor = ResNet(Widths(4, 6, 8, 5), 8, 1)
    return Distillation(adaptor, STEPS, **{"guidance": 3.0, "guided": 1.0, "optimizer": SGD, **options})


BATCHES = [batch(seed) for seed in range(3)] + [batch(3, pairs=1)]  # the last is smaller
VALIDATED: dict[str, Any] = {"monitor": "val/guided_relative_l2"}


def weights(trained: Distillation) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in trained.state_dict().items()}


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def run(folder: Path, epochs: int = 2, options: dict[str, Any] | None = None, **training: Any) -> Distillation:
    made = module(**(options or {}))
    fit(made, folder, Examples(BATCHES), max_epochs=epochs, **{**QUIET, **training})
    return made


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
        made = Distillation(ResNet(Widths(320, 640, 1280, 1024)), STEPS, guidance=7.5, guided=1.0)
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


@pytest.mark.parametrize("interval", [1, 50])
def test_a_loss_that_is_not_finite_stops_and_keeps_the_epoch_before(tmp_path: Path, interval: int) -> None:
    once = run(tmp_path / "once", 1)
    made, data = module(), Examples(BATCHES)

    class Spoil(Callback):
        def on_train_epoch_start(self, trainer: Trainer, module: Any) -> None:
            if trainer.current_epoch == 1:
                BAD.r_out[0, 0, 0, 0] = float("nan")

    BAD = batch(2)  # noqa: N806
    data.batches = [*BATCHES[:2], BAD, BATCHES[3]]
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UserError, match="loss is not finite in epoch 2, batch 3"),
    ):
        patch.setattr(StopWhenNotFinite.__init__, "__defaults__", (interval,))
        fit(made, tmp_path, data, [Spoil()], max_epochs=3, **QUIET)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert equal(checkpoint["state_dict"], weights(once))


def test_a_gradient_that_is_not_finite_stops_before_a_checkpoint(tmp_path: Path) -> None:
    made = module()
    made.adaptor.up.weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(UserError, match="gradient is not finite in epoch 1, batch 1: train to another output"):
        fit(made, tmp_path, Examples(BATCHES), max_epochs=1, every_n_steps=2, **QUIET)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


class Trace(Callback):
    """The weights after every step."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        self.weights.append(weights(module))


def test_averaged_weights_are_kept_saved_and_resumed(tmp_path: Path) -> None:
    made, trace = module(), Trace()
    fit(made, tmp_path / "once", Examples(BATCHES), [trace], max_epochs=2, ema=0.6, **QUIET)
    average = trace.weights[0]
    for n, now in enumerate(trace.weights[1:], 1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * now[name] for name in now}
    for name, weight in weights(made).items():
        torch.testing.assert_close(weight, average[name])
    saved = torch.load(tmp_path / "once" / "checkpoints" / "last.ckpt", weights_only=True)
    assert equal(saved["state_dict"], trace.weights[-1])  # training goes on from the weights, not from their average
    run(tmp_path / "stopped", 1, ema=0.6)
    assert equal(weights(run(tmp_path / "stopped", 2, ema=0.6)), weights(made))
    assert equal(weights(run(tmp_path / "stopped", 2, ema=0.6)), weights(made))  # nothing is left to train


def test_validation_measures_the_averaged_weights(tmp_path: Path) -> None:
    """`val/…` of a run with averaging is what a run whose weights are that average has."""
    averaged = run(tmp_path / "a", 2, ema=0.6, **VALIDATED)
    again = module(optimizer=partial(torch.optim.SGD, lr=0.0))
    again.load_state_dict(averaged.state_dict())
    fit(again, tmp_path / "b", Examples(BATCHES), max_epochs=1, **QUIET, **VALIDATED)
    assert averaged.figures["val/loss"] == pytest.approx(again.figures["val/loss"], rel=1e-6)
    assert averaged.figures["loss"] != pytest.approx(again.figures["loss"], rel=1e-6)


def worse_and_worse(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: (1.0, 1.0, -30.0)[min(epoch, 2)])


@pytest.mark.parametrize("ema", [None, 0.5])
def test_the_best_epochs_weights_are_kept_on_request(tmp_path: Path, ema: float | None) -> None:
    """The third epoch's learning rate is negative: it climbs."""
    options = {"lr_scheduler": worse_and_worse}
    best = run(tmp_path / "best", 3, options, keep="best", ema=ema, **VALIDATED)
    last = run(tmp_path / "last", 3, options, keep="last", ema=ema, **VALIDATED)
    two = run(tmp_path / "two", 2, options, ema=ema, **VALIDATED)
    assert equal(weights(best), weights(two)) and not equal(weights(last), weights(two))
    assert best.figures == two.figures and best.figures["val/loss"] < last.figures["val/loss"]
    resumed = run(tmp_path / "two", 3, options, keep="best", ema=ema, **VALIDATED)
    assert equal(weights(resumed), weights(best)) and resumed.figures == best.figures
    assert {file.name for file in (tmp_path / "best" / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}


def test_validation_changes_nothing_that_is_trained(tmp_path: Path) -> None:
    assert equal(weights(run(tmp_path / "a", **VALIDATED)), weights(run(tmp_path / "b")))


def test_early_stopping_stops_and_stays_stopped(tmp_path: Path) -> None:
    options = {"optimizer": partial(torch.optim.SGD, lr=0.0)}
    for _ in range(2):
        made = module(**options)
        trainer = fit(made, tmp_path, Examples(BATCHES), patience=2, max_epochs=9, **QUIET, **VALIDATED)
        assert trainer.global_step == 3 * len(BATCHES) and "val/loss" in made.figures


def test_figures_survive_when_a_finished_run_is_run_again(tmp_path: Path) -> None:
    assert run(tmp_path).figures == run(tmp_path).figures != {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": "first"}, "use last or best"),
        ({"keep": "best"}, "set val_prompts"),
        ({"patience": 3}, "set val_prompts"),
        ({"ema": 1.5}, "between 0 and 1"),
        ({"precision": "bf16-true"}, "use 32-true, bf16-mixed"),
    ],
)
def test_choices_that_cannot_be_met_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        run(tmp_path, **options)
    assert not list(tmp_path.iterdir())


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
