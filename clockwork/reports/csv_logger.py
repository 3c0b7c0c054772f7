"""Lightning's csv file of a training's figures, written atomically."""

import shutil
from contextlib import nullcontext, suppress
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only

from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write


class AtomicCSVLogger(CSVLogger):
    """Writes `metrics.csv` beside its place and renames it, so that no line of it is cut off."""

    @rank_zero_only
    def save(self) -> None:
        """Writes the figures that have been logged since the last call."""
        writer = self.experiment
        if not writer.metrics:
            return
        file = Path(writer.metrics_file_path)
        with atomic_write(file) as partial:
            if file.is_file():
                shutil.copyfile(file, partial)
            writer.metrics_file_path = str(partial)
            try:
                super().save()
            finally:
                writer.metrics_file_path = str(file)

    def finalize(self, status: str) -> None:
        """Writes what is left; after a failure as far as there is room, so that the failure's error is not replaced."""
        with suppress(UserError) if status == "failed" else nullcontext():
            super().finalize(status)
