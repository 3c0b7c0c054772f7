"""What every script is: one Hydra config, one function, and mistakes answered in a sentence with exit status 2."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

# Not ours to mend, and nothing a user can act on.
for message in (r".*(LeafSpec|treespec).*", r".*does not have many workers.*", r".*Checkpoint directory .* exists.*"):
    warnings.filterwarnings("ignore", message=message)
CONFIGS = Path(__file__).parent.parent / "configs"
MISTAKES = (ValueError, FileNotFoundError, HydraException, OmegaConfBaseException, RuntimeError, OSError)


def command(config: str) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Runs a function of a composed config; `CLOCKWORK_DEBUG=1` shows the traceback of a mistake."""

    def wrap(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        def run() -> None:
            os.environ["HYDRA_FULL_ERROR"] = "1"
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
            os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # it sets its logger's level when imported
            for library in ("lightning.pytorch", "pytorch_lightning", "diffusers", "transformers", "open_clip"):
                logging.getLogger(library).setLevel(logging.ERROR)
            try:
                hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(function)()
            except MISTAKES as mistake:
                if os.environ.get("CLOCKWORK_DEBUG"):
                    raise
                print(f"error: {sentence(mistake)}", file=sys.stderr)
                sys.exit(2)
            except KeyboardInterrupt:
                print("stopped; the same command goes on from here", file=sys.stderr)
                sys.exit(130)

        return run

    return wrap


def sentence(mistake: BaseException) -> str:
    """The innermost reason, on one line."""
    while mistake.__cause__ is not None and isinstance(mistake, HydraException):
        mistake = mistake.__cause__
    return " ".join(str(mistake).split())
