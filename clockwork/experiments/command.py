"""What every command is: one Hydra config, one function, and an exit status that says how it ended.

| status | how |
|---|---|
| 0 | done |
| 1 | a bug, with its traceback |
| 2 | a mistake of the user's, in one sentence |
| 130, 143 | stopped by Ctrl-C, by SIGTERM |
| 138 | stopped by SIGUSR1 in a job of Slurm, which is queued again |
"""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import InterpolationKeyError, MissingMandatoryValue, OmegaConfBaseException

from clockwork.deprecated import with_new_config_keys
from clockwork.errors import UserError
from clockwork.experiments import config_files, configs
from clockwork.experiments.log_file import log_file
from clockwork.experiments.options import check_words
from clockwork.experiments.quoting import quoted
from clockwork.experiments.schemas import COMMANDS, unknown_key
from clockwork.experiments.stops import requeue_at_signal, stopped_by_signals
from clockwork.io import slurm
from clockwork.io.disk import forbidden_path_message, full_disk_message

# Warnings of other libraries that a user cannot act on.
for message in (
    r".*(LeafSpec|treespec).*",
    r".*does not have many workers.*",
    r".*Checkpoint directory .* exists.*",
    r"GPU available but not used.*",
    r".*local_dir_use_symlinks.*",
):
    warnings.filterwarnings("ignore", message=message)

MISTAKES = (UserError, HydraException, OmegaConfBaseException)
VALUES = {  # what stands for a value without default
    "prompts.path": "<a file of captions>",
    "images.path": "<a folder of captioned images>",
    "metrics.reference": "<a folder of real images>",
    "adaptor.path": "<an adaptor's folder, or its name on the hub>",
    "prompt": '"<a text>"',
}
# Lightning's notices; it sets their parent's level when it is imported.
NOTICES = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda")
SIZES = ("batch_size", "generation_batch_size", "prompts_per_epoch", "batch")  # what memory grows with, by config key


def run_command(config: str, function: str, word: str | None = None, resumable: str = "") -> None:
    """Runs a command with the overrides in `sys.argv`: composes and checks its config, then calls its function.

    The environment variable `CLOCKWORK_DEBUG` shows the traceback of a user's mistake, too.

    Args:
        config: The config's name in `configs/`.
        function: What runs it, as `module:function`; imported once the config has been checked.
        word: The key that a first bare word is the value of: `report.py flops` means `what=flops`.
        resumable: What a stopped run leaves for the next one, such as "finished epochs".
    """
    multirun = bool({"-m", "--multirun"} & set(sys.argv))
    words = [quoted(argument, multirun, config) for argument in with_new_config_keys(sys.argv[1:])]
    if word and words and re.fullmatch(r"\w+", words[0]):
        words[0] = f"{word}={words[0]}"
    _quiet_libraries()
    slurm.join_step()

    def task(cfg: DictConfig) -> None:
        sys.argv[1:] = words  # as the user passed them
        with _exit_statuses(config, resumable, cfg):
            configs.check_config(config, cfg, HydraConfig.get().runtime.choices)
            module, _, name = function.partition(":")
            run = getattr(import_module(module), name)
            _hide_loading_bars()
            if "teacher" in cfg:
                import_module("clockwork.experiments.before_loading").check_before_loading(cfg)  # imports torch
            with log_file(cfg.get("output"), words):
                run(cfg)

    with _exit_statuses(config, resumable):
        if resumable:
            requeue_at_signal()
        check_words(words)
        first = next((i for i, w in enumerate(words) if "=" in w and not w.startswith("-")), len(words))
        sys.argv[1:] = [*words[:first], *configs.teacher_overrides(config, words), *words[first:]]
        hydra.main(version_base="1.3", config_path=str(config_files.FOLDER), config_name=config)(task)()


@contextmanager
def _exit_statuses(config: str, resumable: str, cfg: DictConfig | None = None) -> Iterator[None]:
    """Turns what ends the block into an exit status; `cfg` is the config of that name, once it is composed."""
    try:
        with stopped_by_signals(resumable):
            yield
    except MISTAKES as error:
        reason = innermost(error)
        if os.environ.get("CLOCKWORK_DEBUG"):
            raise
        if not isinstance(reason, MISTAKES) and not _about_override(
            str(error), config
        ):  # a bug in what Hydra was building
            raise _with_advice(reason, cfg) from None
        print(f"error: {sentence(error, config)}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if (message := full_disk_message(error) or forbidden_path_message(error)) is not None:
            print(f"error: {message}", file=sys.stderr)
            sys.exit(2)
        _with_advice(error, cfg)
        raise


def _with_advice(error: BaseException, cfg: DictConfig | None) -> BaseException:
    """The error, with a note below its traceback where it ran out of memory."""
    if isinstance(error, MemoryError) or re.search(r"out of memory|can't allocate memory", str(error)):
        sizes = ", ".join(key for key in SIZES if cfg is not None and key in cfg)
        if sizes:
            error.add_note(f"Out of memory: pass a smaller {sizes}, or precision=float16 or bfloat16.")
    return error


def _quiet_libraries() -> None:
    os.environ["HYDRA_FULL_ERROR"] = "1"
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")  # it sets its logger's level when imported
    for library in ("lightning.pytorch", "pytorch_lightning", *NOTICES, "diffusers", "transformers", "open_clip"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _hide_loading_bars() -> None:
    """Hides the bars with which libraries load weights: they are short, and a log would keep them."""
    for library in ("diffusers", "transformers"):
        if library in sys.modules:  # else the command loads no weights
            import_module(f"{library}.utils.logging").disable_progress_bar()


def innermost(error: BaseException) -> BaseException:
    """What Hydra's own exceptions were raised from."""
    while error.__cause__ is not None and isinstance(error, HydraException):
        error = error.__cause__
    return error


def sentence(mistake: BaseException, config: str | None = None) -> str:
    """The reason of a mistake, on one line.

    Args:
        mistake: The exception.
        config: The command's config in which it occurred, if known.
    """
    reason = innermost(mistake)
    key = getattr(reason, "full_key", None)
    if isinstance(mistake, OverrideParseException):
        if re.fullmatch(r"[\w.]+", str(mistake.override)):
            return f"{mistake.override!r} has no value: pass {mistake.override}=<a value>"
        return (
            f"{mistake.override!r} cannot be read: put the value in quotes, as in key='a value with spaces or commas'"
        )
    if isinstance(mistake, HydraException) and (message := _about_override(str(mistake), config)):
        return message
    if isinstance(reason, MissingMandatoryValue):
        return missing_value(str(key))
    if isinstance(reason, InterpolationKeyError) and (brought := re.search(r"'brings\.(\w+)", str(reason))):
        return f"the teacher's config has no {key} for {brought[1]} in `brings`: pass {key}=<a value>, or add it there"
    return " ".join(str(reason).split())


def _about_override(message: str, config: str | None) -> str | None:
    """What is wrong with an override that Hydra refused, if it is one of the common mistakes."""
    if config and (unknown := re.search(r"Could not (?:override|append to config\. No match.*) '([\w.]+)'", message)):
        return unknown_key(unknown[1], COMMANDS[config])
    if config and (unknown := re.search(r"Key '\w+' is not in struct\s+full_key: ([\w.]+)", message)):
        return unknown_key(unknown[1], COMMANDS[config])
    if group := re.search(r"Could not find '([\w/@]+)/(\S+?)'", message):
        return configs.unknown_choice(group[1], group[2])
    if twice := re.search(r"An item is already at '([\w.]+)'|Multiple values for ([\w.@]+)\.", message):
        key = twice[1] or twice[2]
        return f"+{key} is not allowed, because {key} is a key of this config: pass {key}=… without +"
    if target := re.search(r"Error locating target '([\w.]+)'", message):
        return f"there is no {target[1]}: check the module and the name in _target_"
    if sweep := re.search(r"Ambiguous value for argument '((\S+?)=(.*))'", message):
        return f"{sweep[1]!r} is a sweep: pass -m as well, or {sweep[2]}=[{sweep[3]}] for a list"
    return None


def missing_value(key: str) -> str:
    """The sentence on a config key without a value."""
    return f"{key} has no default: pass {key}={VALUES.get(key, '<a value>')}"
