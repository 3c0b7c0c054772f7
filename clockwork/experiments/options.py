"""Checks of a command line before Hydra reads it: its options, and words without a key or a value.

Hydra would answer with a page of usage, and take shortened options.
"""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from clockwork.errors import UserError
from clockwork.io.paths import can_be_folder

_SHOWN = ("job", "hydra", "all")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
# The values that an option allows: any for None, none for (). Hydra's --experimental-rerun, which reads a pickle, is
# not among them.
OPTIONS: dict[str, tuple[str, ...] | None] = {
    "--help": (),
    "--hydra-help": (),
    "--version": (),
    "--cfg": _SHOWN,
    "--resolve": (),
    "--package": None,
    "--run": (),
    "--multirun": (),
    "--shell-completion": (),
    "--config-path": None,
    "--config-name": None,
    "--config-dir": None,
    "--info": _INFO,
}
SHORT = {
    **{"-h": "--help", "-c": "--cfg", "-p": "--package", "-r": "--run", "-m": "--multirun", "-i": "--info"},
    **{"-sc": "--shell-completion", "-cp": "--config-path", "-cn": "--config-name", "-cd": "--config-dir"},
}
_FOLDERS = ("hydra.run.dir", "hydra.sweep.dir")
_COMPLETIONS = ("install=", "uninstall=", "query=")


def check_words(words: Sequence[str]) -> None:
    """Checks the options of a command line, and that every other word has a key.

    Args:
        words: The words after the command.

    Raises:
        UserError: An option is unknown or shortened, or its value is missing or not allowed, or a word has no key.
    """
    given, left = set(), list(words)
    while left:
        word = left.pop(0)
        if word.startswith("="):
            raise UserError(f"{word!r} has no key: pass key=value, without spaces around =")
        if word.startswith("-") and word != "--":
            given.add(_checked_option(word, left))
    if "--resolve" in given and not given & {"--cfg", "--help"}:
        raise UserError("--resolve needs --cfg job beside it: pass both, or leave it out")
    if "--shell-completion" in given and not any(word.startswith(_COMPLETIONS) for word in words):
        raise UserError("--shell-completion needs install=bash, install=zsh, uninstall=… or query=… beside it")
    for word in words:
        key, _, value = word.partition("=")
        if key in _FOLDERS and "${" not in value and not can_be_folder(Path(value)):
            raise UserError(f"{word} is not allowed: use the path of a folder to write to, or of a new one")


def _checked_option(word: str, left: list[str]) -> str:
    """Checks an option and takes its value from the words that are left; returns its full name."""
    name, equals, value = word.partition("=")
    option = SHORT.get(name, name)
    if option not in OPTIONS:
        raise UserError(_unknown(name, equals + value, left))
    allowed = OPTIONS[option]
    if allowed == ():
        if equals:
            raise UserError(f"{word} is not allowed: {name} takes no value")
        return option
    if not equals and left and not left[0].startswith("-"):
        value = left.pop(0)
    if not value or (allowed is None and not equals and "=" in value):
        raise UserError(f"{name} needs a value: pass {name}=<{'a value' if allowed is None else ', '.join(allowed)}>")
    if allowed is not None and value not in allowed:
        raise UserError(f"{name}={value} is not allowed: use one of {', '.join(allowed)}")
    return option


def _unknown(name: str, value: str, left: Sequence[str]) -> str:
    """The message about an option that there is not: a shortened one, or a key with dashes before it."""
    near = [option for option in OPTIONS if name.startswith("--") and len(name) > 3 and option.startswith(name)]
    near = near or get_close_matches(name, OPTIONS, 1, 0.75)
    if near:
        return f"{name} is not an option: did you mean {near[0]}?"
    key = name.lstrip("-").replace("-", "_")
    value = value or (f"={left[0]}" if left and "=" not in left[0] else "=<a value>")
    if re.fullmatch(r"[a-zA-Z]\w+(\.\w+)*", key):
        return f"{name} is not an option: pass {key}{value}, without dashes"
    return f"{name} is not an option: pass key=value, and see --help for the keys"
