"""The training loop: figures, averaged weights, the weights that are kept, stops; on random features, in a second."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.training_loop import BATCHES, QUIET, VALIDATED, Examples, batch, loader, module, run
from pytorch_lightning import Callback, Trainer
from torch import Tensor

from clockwork.errors import UserError
from clockwork.training.callbacks import StopWhenNotFinite
from clockwork.training.fit import fit
from clockwork.training.objectives.adaptor import AdaptorDistillation


def weights(trained: AdaptorDistillation) -> dict[str, Tensor]:
    return {name: weight.clone() for name, weight in trained.state_dict().items()}


def equal(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


SPOILED = {
    "features": "the examples are not finite in epoch 2, batch 3: pass precision",
    "target": "the examples are not finite in epoch 2, batch 3: pass precision",
    "weight": "the loss is not finite in epoch 2, batch 3: train to another output with a lower",
    "validation": "the loss of validation is not finite in epoch 2: train to another",
}


@pytest.mark.parametrize("interval", [1, 50])
@pytest.mark.parametrize("place", SPOILED)
def test_what_is_not_finite_stops_and_keeps_the_epoch_before(
    place: str, interval: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = run(tmp_path / "once", 1, **VALIDATED)
    made, data, bad, held_out = module(), Examples(BATCHES), batch(2), batch(100)
    data.batches = [*BATCHES[:2], bad, BATCHES[3]]
    monkeypatch.setattr(data, "val_dataloader", lambda: loader([held_out]))
    spoiled = {"features": bad.r_in, "target": bad.r_out, "weight": made.adaptor.up.weight, "validation": held_out.r_in}

    class Spoil(Callback):
        def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, batch_idx: int) -> None:
            if (trainer.current_epoch, batch_idx) == (1, 2 if place == "weight" else 0):
                spoiled[place].detach().view(-1)[0] = float("nan")

    monkeypatch.setattr(StopWhenNotFinite.__init__, "__defaults__", (interval,))
    with pytest.raises(UserError, match=f"^{SPOILED[place]}.*; the checkpoint of epoch 1 is kept$"):
        fit(made, tmp_path, data, [Spoil()], max_epochs=3, **QUIET, **VALIDATED)
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert equal(checkpoint["state_dict"], weights(once))


@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint")
def test_a_run_goes_on_from_the_middle_of_an_epoch(tmp_path: Path) -> None:
    run(tmp_path, every_n_steps=3, max_steps=3)
    run(tmp_path, every_n_steps=3)
    assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6


def test_a_gradient_that_is_not_finite_stops_before_a_checkpoint(tmp_path: Path) -> None:
    made = module()
    made.adaptor.up.weight.register_hook(lambda gradient: gradient / 0)
    with pytest.raises(UserError, match="gradient is not finite in epoch 1, batch 1: train to another output"):
        fit(made, tmp_path, Examples(BATCHES), max_epochs=1, every_n_steps=2, **QUIET)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


class InterruptsInADestructor(Callback):
    """Presses Ctrl-C in a destructor after the first batch: Python ignores what is raised there."""

    batches = 0

    def on_train_batch_end(self, *_: Any) -> None:
        class Bar:
            def __del__(self) -> None:
                signal.raise_signal(signal.SIGINT)

        self.batches += 1
        Bar()


def test_ctrl_c_in_a_destructor_is_not_lost(tmp_path: Path) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    interrupting = InterruptsInADestructor()
    try:
        with pytest.raises(KeyboardInterrupt, match="nothing is kept"):
            fit(module(), tmp_path, Examples(BATCHES), [interrupting], max_epochs=1, **QUIET)
        assert interrupting.batches == 1 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)


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
    assert {file.name for file in (tmp_path / "best" / "checkpoints").iterdir()} == {
        *("best.ckpt", "last.ckpt", "previous.ckpt")
    }


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
