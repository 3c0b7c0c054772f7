"""Sample images during training: the same prompts and noise with each of several samplers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from clockwork.adaptors import Identity
from clockwork.data.image_io import write_grid
from clockwork.data.prompts import Prompt
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.training.callbacks import averaged_weights


class SampleImages(Checkpoint):
    """Writes `epoch*.png`, one row of images per sampler, and passes the file to loggers that accept images.

    A `Checkpoint` callback, because Lightning runs those last and in their order: the epoch's checkpoint is written
    first, and an error in sample images does not lose the epoch.

    Args:
        samplers: Samplers by the label of their row. Modules that they share with the module in training have its
            weights, or the moving average if there is one.
        prompts: Prompts of the images.
        folder: Folder of the files.
        every_n_epochs: Epochs between two files; the last epoch also writes one. 0: no files.
    """

    def __init__(
        self, samplers: Mapping[str, Sampler], prompts: Sequence[Prompt], folder: Path, every_n_epochs: int = 10
    ) -> None:
        self.samplers, self.prompts, self.folder, self.every_n_epochs = samplers, prompts, folder, every_n_epochs

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Generates and writes the images, in the main process."""
        epoch, every = trainer.current_epoch + 1, self.every_n_epochs
        due = every > 0 and (epoch % every == 0 or epoch == trainer.max_epochs or trainer.should_stop)
        if not (trainer.is_global_zero and due):
            return
        file = self.folder / f"epoch{epoch:04d}.png"
        captions, ids = [p.text for p in self.prompts], [p.id for p in self.prompts]
        with averaged_weights(trainer, module):
            rows = {
                label: sampler.teacher.decode(sampler.latents(captions, sampler.teacher.noise(ids)))
                for label, sampler in self.samplers.items()
            }
        write_grid(file, rows)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("samples", [str(file)], step=trainer.global_step)


def comparison_samplers(sampler: Sampler) -> dict[str, Sampler]:
    """Creates the samplers whose images are compared while an adaptor is trained.

    Args:
        sampler: The operating point, with the adaptor in training.

    Returns:
        The teacher, the identity adaptor (if the schedule starts with a full step, which it can repeat), and the
        sampler itself, by label.
    """
    assert sampler.adaptor is not None
    samplers = {"teacher": replace(sampler, adaptor=None, schedule=Schedule())}
    if sampler.schedule.is_full(1):
        samplers["identity"] = replace(sampler, adaptor=Identity(sampler.adaptor.dims))
    return {**samplers, sampler.adaptor_name: sampler}
