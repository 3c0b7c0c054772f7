"""Sample images while something trains: of the same prompts and noise, by each of several samplers."""

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


class Samples(Checkpoint):
    """Writes `epoch*.png`, one row of images per sampler, and passes it to loggers that keep images.

    A `Checkpoint` callback, because Lightning runs those last and in their order: the epoch's checkpoint is written
    first, and an error in sample images does not lose the epoch.

    Args:
        samplers: The samplers by name; what they share with the module in training has its weights, averaged where an
            average is kept.
        prompts: What is drawn.
        folder: Where.
        every: Epochs between two; the last epoch has some, too. 0: none.
    """

    def __init__(
        self, samplers: Mapping[str, Sampler], prompts: Sequence[Prompt], folder: Path, every: int = 10
    ) -> None:
        self.samplers, self.prompts, self.folder, self.every = samplers, prompts, folder, every

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = self.every > 0 and (epoch % self.every == 0 or epoch == trainer.max_epochs or trainer.should_stop)
        if not (trainer.is_global_zero and due):
            return
        file = self.folder / f"epoch{epoch:04d}.png"
        captions, ids = [p.text for p in self.prompts], [p.id for p in self.prompts]
        with averaged_weights(trainer, module):
            rows = {
                name: sampler.teacher.decode(sampler.latents(captions, sampler.teacher.noise(ids)))
                for name, sampler in self.samplers.items()
            }
        write_grid(file, rows)
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):  # those that keep images
                logger.log_image("samples", [str(file)], step=trainer.global_step)


def beside_teacher(sampler: Sampler) -> dict[str, Sampler]:
    """Teacher, identity (where the schedule has a full step for it to repeat) and the sampler's own adaptor."""
    assert sampler.adaptor is not None
    teacher = {"teacher": replace(sampler, adaptor=None, schedule=Schedule())}
    identity = (
        {"identity": replace(sampler, adaptor=Identity(sampler.adaptor.dims))} if sampler.schedule.is_full(1) else {}
    )
    return {**teacher, **identity, sampler.adaptor_name: sampler}
