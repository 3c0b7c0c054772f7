"""Progress bars."""

import os
import sys
from typing import Any

from tqdm import tqdm

from clockwork.io.distributed import rank


def progress_bar(*arguments: Any, **options: Any) -> Any:
    """Creates tqdm's progress bar, which is hidden where `hides_bars` says so.

    Args:
        *arguments: Those of `tqdm`.
        **options: Those of `tqdm`.
    """
    return tqdm(*arguments, disable=hides_bars(), **options)


def hides_bars() -> bool:
    """Whether this process shows no progress bars.

    Bars are for a terminal or a notebook, and for the main process, unless a command above it shows a bar already.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules
    return not watched or rank() > 0 or bool(os.environ.get("TQDM_DISABLE"))
