"""Pictures while an adaptor trains: teacher, identity and adaptor for the same prompts and noise."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pytorch_lightning import Callback, LightningModule, Trainer

from clockwork.adaptors import Identity
from clockwork.pictures import write_grid
from clockwork.prompts import Prompt
from clockwork.schedule import Schedule
from clockwork.setup import Setup


class Samples(Callback):
    """Writes `samples/epoch*.png` every few epochs and after the last, for the loggers that keep pictures too."""

    def __init__(self, setup: Setup, prompts: Sequence[Prompt], folder: Path, every: int = 10) -> None:
        assert setup.adaptor is not None
        self.prompts, self.folder, self.every = prompts, folder, every
        self.setups = {
            "teacher": replace(setup, adaptor=None, schedule=Schedule()),
            "identity": replace(setup, adaptor=Identity(setup.adaptor.widths)),
            setup.adaptor_name: setup,
        }

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and (epoch % self.every == 0 or epoch == trainer.max_epochs):
            teacher = self.setups["teacher"].teacher
            noise = teacher.noise([p.id for p in self.prompts])
            captions = [p.text for p in self.prompts]
            rows = {name: teacher.decode(s.latents(captions, noise)) for name, s in self.setups.items()}
            file = self.folder / f"epoch{epoch:04d}.png"
            write_grid(file, rows)
            for logger in trainer.loggers:
                if hasattr(logger, "log_image"):  # those that keep pictures
                    logger.log_image("samples", [str(file)], step=trainer.global_step)
