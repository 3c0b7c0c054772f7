"""What happens around a training step: averaged weights, a stop at numbers that are not finite, the progress bar."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, TQDMProgressBar
from torch import Tensor
from torch.optim import Optimizer

from clockwork.errors import UserError
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.epoch_means import EpochMeans

NEVER = 2**31 - 1


class WeightAverage(Callback):
    """Exponential moving average of the trained weights: what is validated, shown as sample images and kept.

    diffusers' `EMAModel`: at step n the decay is the smaller of `decay` and (1 + n) / (10 + n). A checkpoint holds the
    trained weights in `state_dict` and the average here.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: EMAModel
        self._loaded: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.average = EMAModel(module.parameters(), decay=self.decay, foreach=True)
        if self._loaded is not None:
            self.average.load_state_dict(self._loaded)
        self.average.to(module.device)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if trainer.global_step > self._steps:  # not while gradients of several batches are accumulated
            self.average.step(module.parameters())
            self._steps = trainer.global_step

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.average.store(module.parameters())
        self.average.copy_to(module.parameters())

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.average.restore(module.parameters())

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict


@contextmanager
def averaged_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """While open, the module holds the averaged weights, where there are any."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAverage)]
    for average in averages:
        average.on_validation_start(trainer, module)
    try:
        yield
    finally:
        for average in averages:
            average.on_validation_end(trainer, module)


class StopWhenNotFinite(Callback):
    """Stops training at the first loss or gradient that is NaN or infinite, before anything of it is saved.

    Looks at every step and waits for the device only every `interval` batches, at the end of an epoch and before a
    checkpoint.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        # The first batch with such a loss, and gradient, times the number of processes, plus the process's own
        self._first = torch.full((2,), NEVER, device=module.device)

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # a scaler leaves such steps out by itself
            norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
            self._note(1, norm, trainer, trainer.fit_loop.epoch_loop.batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._note(0, outputs["loss"], trainer, batch_idx)
        if (batch_idx + 1) % self.interval == 0:
            self._look(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)

    def _note(self, which: int, number: Tensor, trainer: Trainer, batch_idx: int) -> None:
        here = torch.where(number.isfinite(), NEVER, batch_idx * trainer.world_size + trainer.global_rank)
        self._first[which] = torch.minimum(self._first[which], here)

    def _look(self, trainer: Trainer) -> None:
        """Ends every process where one of them has seen such a number; the first raises a UserError for all."""
        loss, gradient = trainer.strategy.reduce(self._first.clone(), reduce_op="min").tolist()
        if min(loss, gradient) == NEVER:
            return
        if not trainer.is_global_zero:
            sys.exit(2)
        batch, rank = divmod(min(loss, gradient), trainer.world_size)
        epoch, what = trainer.current_epoch, "loss" if loss <= gradient else "gradient"
        kept = f"; the checkpoint of epoch {epoch} is kept" if epoch else ""
        raise UserError(
            f"the {what} is not finite in epoch {epoch + 1}, batch {batch + 1}{_prompts(trainer, batch, rank)}: train "
            f"to another output with a lower learning_rate, trainer.gradient_clip_val=1 or another precision{kept}"
        )


def _prompts(trainer: Trainer, batch: int, rank: int) -> str:
    """What the examples of a batch were made of, where the data module knows."""
    if not isinstance(trainer.datamodule, OnlineDataModule):
        return ""
    items = trainer.datamodule.items_of_batch(trainer.current_epoch, batch, rank, trainer.world_size)
    texts = dict.fromkeys(repr(item.text) for item in items)
    return f", of {', '.join(list(texts)[:4])}" + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")


class StayStopped(EarlyStopping):
    """Early stopping, also when the command of a run that it has stopped is run again."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.should_stop = self.wait_count >= self.patience


class ProgressBar(TQDMProgressBar):
    """Lightning's, with the epoch's means so far, read when the bar is redrawn and not at every step."""

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        figures = super().get_metrics(trainer, module)
        figures.pop("v_num", None)
        means = getattr(module, "means", EpochMeans()).read()
        return {**figures, **{name: mean for name, (mean, _) in means.items() if "/" not in name}}
