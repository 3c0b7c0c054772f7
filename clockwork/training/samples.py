"""Pictures while something trains: the same prompts and noise by each of several setups."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from clockwork.adaptors import Identity
from clockwork.data.image_io import write_grid
from clockwork.data.prompts import Prompt
from clockwork.sampling.sampler import Setup
from clockwork.schedule import Schedule


class Samples(Callback):
    """Writes `epoch*.png` into the folder every few epochs and after the last, a line a setup, for loggers that keep
    pictures too; `every` 0: never."""

    def __init__(self, setups: Mapping[str, Setup], prompts: Sequence[Prompt], folder: Path, every: int = 10) -> None:
        self.setups, self.prompts, self.folder, self.every = setups, prompts, folder, every

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        due = self.every > 0 and (epoch % self.every == 0 or epoch == trainer.max_epochs)
        if trainer.is_global_zero and due:
            rows = {}
            for name, setup in self.setups.items():
                noise = setup.teacher.noise([p.id for p in self.prompts])
                rows[name] = setup.teacher.decode(setup.latents([p.text for p in self.prompts], noise))
            file = self.folder / f"epoch{epoch:04d}.png"
            write_grid(file, rows)
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):  # those that keep pictures
                    logger.log_image("samples", [str(file)], step=trainer.global_step)


def beside_teacher(setup: Setup) -> dict[str, Setup]:
    """Teacher, identity (where the schedule has a step for it to repeat) and the setup's own adaptor."""
    assert setup.adaptor is not None
    teacher = {"teacher": replace(setup, adaptor=None, schedule=Schedule())}
    identity = {"identity": replace(setup, adaptor=Identity(setup.adaptor.widths))} if setup.schedule.is_full(1) else {}
    return {**teacher, **identity, setup.adaptor_name: setup}
