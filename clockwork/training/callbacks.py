"""Callbacks: moving average of the weights, stop at a loss that is not finite, early stopping and progress bar."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NoReturn

import torch
from diffusers.training_utils import EMAModel
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, TQDMProgressBar
from torch import Tensor
from torch.optim import Optimizer

from clockwork.errors import UserError
from clockwork.io.units import duration
from clockwork.training.datamodule import OnlineDataModule
from clockwork.training.epoch_means import EpochMeans
from clockwork.training.store import Batch

NEVER = 2**31 - 1  # batch number that stands for "no such batch"


class WeightAverage(Callback):
    """Exponential moving average of the trained weights, which replaces them in validation and sample images.

    Uses diffusers' `EMAModel`: at step n the decay is the smaller of `decay` and (1 + n) / (10 + n). A checkpoint holds
    the trained weights in its `state_dict`, and the average in this callback's state.

    Args:
        decay: Largest decay, between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: EMAModel
        self._loaded: dict[str, Any] | None = None

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Creates the average, from the checkpoint if training is resumed."""
        self.average = EMAModel(module.parameters(), decay=self.decay, foreach=True)
        if self._loaded is not None:
            self.average.load_state_dict(self._loaded)
        self.average.to(module.device)
        self._steps = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        """Updates the average after an optimiser step."""
        if trainer.global_step > self._steps:  # gradients of several batches may be accumulated
            self.average.step(module.parameters())
            self._steps = trainer.global_step

    def on_validation_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Loads the average into the module."""
        self.average.store(module.parameters())
        self.average.copy_to(module.parameters())

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Loads the trained weights back into the module."""
        self.average.restore(module.parameters())

    def state_dict(self) -> dict[str, Any]:
        """Returns the average for a checkpoint."""
        return self.average.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keeps the average of a checkpoint until `on_fit_start`."""
        self._loaded = state_dict


@contextmanager
def averaged_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Context manager in which the module holds the moving average of its weights, if there is one.

    Args:
        trainer: Trainer with the callbacks.
        module: The module in training.
    """
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAverage)]
    for average in averages:
        average.on_validation_start(trainer, module)
    try:
        yield
    finally:
        for average in averages:
            average.on_validation_end(trainer, module)


class StopWhenNotFinite(Callback):
    """Stops training with a UserError when examples, a loss or a gradient are NaN or infinite, before a checkpoint.

    Every step is checked on the device. The result is read only every `interval` batches, at the end of an epoch and
    before a checkpoint, because reading it waits for the device.

    Args:
        interval: Number of batches between two reads.
    """

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Begins also where a checkpoint in the middle of an epoch goes on."""
        self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Forgets what was found in the previous epoch."""
        # Of each of `_ADVICE`: number of the first batch that is not finite × number of processes + rank.
        self._first = torch.full((len(_ADVICE),), NEVER, device=module.device)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Checks the examples, if they are ours."""
        if isinstance(batch, Batch):
            values = [getattr(batch, field.name) for field in fields(batch)]
            floats = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
            sums = torch.stack([value.sum(dtype=torch.float32).to(module.device) for value in floats])
            self._record(0, sums, trainer, batch_idx)

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        """Checks the gradients."""
        if getattr(trainer.precision_plugin, "scaler", None) is None:  # a gradient scaler skips such steps itself
            norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters() if p.grad is not None])
            self._record(2, norm, trainer, trainer.fit_loop.epoch_loop.batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Checks the loss."""
        self._record(1, outputs["loss"], trainer, batch_idx)
        if (batch_idx + 1) % self.interval == 0:
            self._raise_if_not_finite(trainer)

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Checks the loss of validation, the same in all processes, after what training has recorded."""
        self._raise_if_not_finite(trainer)
        if not torch.as_tensor(trainer.callback_metrics.get("val/loss", 0.0)).isfinite():
            _stop(
                trainer, f"the loss of validation is not finite in epoch {trainer.current_epoch + 1}: {_ADVICE['loss']}"
            )

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Reads the result at the end of an epoch."""
        self._raise_if_not_finite(trainer)

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Reads the result before a checkpoint is written."""
        self._raise_if_not_finite(trainer)

    def _record(self, index: int, value: Tensor, trainer: Trainer, batch_idx: int) -> None:
        """Records a batch if a value of it is not finite, without waiting for the device."""
        location = torch.where(value.isfinite().all(), NEVER, batch_idx * trainer.world_size + trainer.global_rank)
        self._first[index] = torch.minimum(self._first[index], location)

    def _raise_if_not_finite(self, trainer: Trainer) -> None:
        """Ends all processes if one of them recorded a batch."""
        first = trainer.strategy.reduce(self._first.clone(), reduce_op="min").tolist()
        if min(first) == NEVER:
            return
        name, advice = list(_ADVICE.items())[first.index(min(first))]  # of one batch, the cause
        batch, rank = divmod(min(first), trainer.world_size)
        location = f"in epoch {trainer.current_epoch + 1}, batch {batch + 1}{_prompts(trainer, batch, rank)}"
        _stop(trainer, f"the {name} {'are' if name == 'examples' else 'is'} not finite {location}: {advice}")


_LOWER = "train to another output with a lower learning_rate, trainer.gradient_clip_val=1 or another precision"
_ADVICE = {
    "examples": "pass precision=float32 or bfloat16, or check the weights of the teacher",
    "loss": _LOWER,
    "gradient": _LOWER,
}


def _stop(trainer: Trainer, message: str) -> NoReturn:
    """Ends all processes; the main process raises a UserError that adds which checkpoint is kept."""
    if not trainer.is_global_zero:
        sys.exit(2)
    epoch = trainer.current_epoch
    raise UserError(f"{message}; the checkpoint of epoch {epoch} is kept" if epoch else message)


def _prompts(trainer: Trainer, batch: int, rank: int) -> str:
    """Describes the prompts of a training batch, if the data module is ours."""
    if not isinstance(trainer.datamodule, OnlineDataModule):
        return ""
    items = trainer.datamodule.items_of_batch(trainer.current_epoch, batch, rank, trainer.world_size)
    texts = dict.fromkeys(repr(item.text) for item in items)
    return f", of {', '.join(list(texts)[:4])}" + (f" and {len(texts) - 4} more" if len(texts) > 4 else "")


class StayStopped(EarlyStopping):
    """Early stopping that remains in effect when a stopped run is resumed."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Stops at once if the checkpoint has no patience left."""
        trainer.should_stop = self.wait_count >= self.patience


class EpochLines(Checkpoint):
    """Prints a line per finished epoch, in place of a bar. As a `Checkpoint`, it runs after all figures are logged."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Notes the time also where a checkpoint in the middle of an epoch goes on."""
        self.on_train_epoch_start(trainer, module)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Notes the time."""
        self._start = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Prints the epoch's figures and its duration, on the main process."""
        figures = ", ".join(f"{name} {float(value):.4g}" for name, value in sorted(trainer.callback_metrics.items()))
        if trainer.is_global_zero:
            took = duration(time.monotonic() - self._start)
            print(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs} ({took}): {figures}", flush=True)


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar with the epoch's means, which are read only when the bar is redrawn."""

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        """Returns Lightning's metrics and the means so far, without those by step."""
        figures = super().get_metrics(trainer, module)
        figures.pop("v_num", None)
        means = getattr(module, "means", EpochMeans()).read()
        return {**figures, **{name: mean for name, (mean, _) in means.items() if "/" not in name}}
