"""What every script is: one Hydra config, one function, and mistakes answered in a sentence with exit status 2."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from clockwork.errors import UserError

# Not ours to mend, and nothing a user can act on.
for message in (r".*(LeafSpec|treespec).*", r".*does not have many workers.*", r".*Checkpoint directory .* exists.*"):
    warnings.filterwarnings("ignore", message=message)
CONFIGS = Path(__file__).parents[2] / "configs"


def command(config: str, word: str | None = None) -> Callable[[Callable[[DictConfig], None]], Callable[[], None]]:
    """Runs a function of a composed config; `CLOCKWORK_DEBUG=1` shows the traceback of a mistake.

    `word` is the key that a first bare word stands for: `report.py flops` means `what=flops`.
    """

    def wrap(function: Callable[[DictConfig], None]) -> Callable[[], None]:
        def run() -> None:
            sys.argv[1:] = map(spelled, sys.argv[1:])
            if word and len(sys.argv) > 1 and re.fullmatch(r"\w+", sys.argv[1]):
                sys.argv[1] = f"{word}={sys.argv[1]}"
            os.environ["HYDRA_FULL_ERROR"] = "1"
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
            os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # it sets its logger's level when imported
            for library in ("lightning.pytorch", "pytorch_lightning", "diffusers", "transformers", "open_clip"):
                logging.getLogger(library).setLevel(logging.ERROR)
            try:
                hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name=config)(function)()
            except (UserError, HydraException, OmegaConfBaseException) as error:
                reason = innermost(error)
                if os.environ.get("CLOCKWORK_DEBUG"):
                    raise
                if not isinstance(reason, UserError | HydraException | OmegaConfBaseException):
                    raise reason from None  # a bug in what Hydra has built: shown with its own traceback
                print(f"error: {sentence(reason)}", file=sys.stderr)
                sys.exit(2)
            except KeyboardInterrupt:
                print("stopped; the same command goes on from here", file=sys.stderr)
                sys.exit(130)

        return run

    return wrap


def spelled(word: str) -> str:
    """As Hydra wants it: it takes `table=3` for a number, and asks for quotes round a config's name."""
    group, _, names = word.partition("=")
    if group.lstrip("+") not in ("table", "figure") or not re.fullmatch(r"\w+(,\w+)*", names):
        return word
    return f"{group}={','.join(repr(name) for name in names.split(','))}"


def innermost(error: BaseException) -> BaseException:
    """What Hydra's own exceptions were raised from."""
    while error.__cause__ is not None and isinstance(error, HydraException):
        error = error.__cause__
    return error


def sentence(mistake: BaseException) -> str:
    """The innermost reason, on one line."""
    mistake = innermost(mistake)
    if isinstance(mistake, MissingMandatoryValue):
        return f"{mistake.full_key} has no default: say {mistake.full_key}=…"
    return " ".join(str(mistake).split())
