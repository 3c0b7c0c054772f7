"""Words of a command line that Hydra's grammar would read otherwise than they were meant."""

import os
import re
from typing import Annotated, Any, get_args, get_origin

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from clockwork.experiments.schemas import COMMANDS
from clockwork.experiments.schemas.describe import arms, groups_of, hints_of

PROMPTS = ("prompt", "source", "target", "negative")  # whose values are texts whatever they look like


def quoted(word: str, multirun: bool = False, config: str | None = None) -> str:
    """Quotes a value that Hydra would read otherwise.

    Config names such as `table=3` are numbers to Hydra, and `cut=3,4` and `schedule=2,4` are sweeps, which they are
    only with `-m`. So are texts with commas; and texts with apostrophes, brackets, `#` or `=` are none.

    Args:
        word: A word of the command line.
        multirun: Whether commas separate the values of a sweep.
        config: Name of the command's config, whose texts and paths are quoted; None quotes none.
    """
    key, equals, value = word.partition("=")
    name = key.lstrip("+")
    if name in ("table", "figure") and re.fullmatch(r"\w+(,\w+)*", value):
        return f"{key}={','.join(repr(name) for name in value.split(','))}"
    if re.fullmatch(r"(\w+\.)?(cut|schedule)", key) and re.fullmatch(r"\d+(, *\d+)+", value) and not multirun:
        return f"{key}={value!r}"
    is_text = equals and config is not None and _is_text(COMMANDS[config], name.split("."))
    if is_text and name not in PROMPTS and value.startswith("~"):  # which shells leave as it is behind =
        value = os.path.expanduser(value)  # noqa: PTH111 (which keeps the name of an unknown user)
        word = f"{key}={value}"
    if not is_text or multirun or value in ("", "null", "???") or value.startswith("${"):
        return word
    return word if _is_read_as_meant(word, name in PROMPTS) else f"{key}={_in_quotes(value)}"


def _is_text(schema: Any, path: list[str]) -> bool:
    """Whether a key of a config is a text, in every group that it may be in."""
    hint = hints_of(schema).get(path[0])
    if hint is None or len(path) == 1:
        return hint is not None and any(_is_str(arm) for arm in arms(hint))
    below = [_is_text(group, path[1:]) for group in groups_of(hint) if path[1] in hints_of(group)]
    return bool(below) and all(below)


def _is_str(hint: Any) -> bool:
    return hint is str or (get_origin(hint) is Annotated and get_args(hint)[0] is str)


def _is_read_as_meant(word: str, is_prompt: bool) -> bool:
    """Whether Hydra reads a word as one text, or as what the config's check refuses in a sentence, such as a list."""
    try:
        override: Override = OverridesParser.create().parse_overrides([word])[0]
    except HydraException:
        return False
    value = word.partition("=")[2]
    in_quotes = value[0] in "'\"" and value[0] == value[-1]
    return not override.is_sweep_override() and (in_quotes or not is_prompt)


def _in_quotes(value: str) -> str:
    """A text in quotes, in which Hydra keeps all characters."""
    escaped = re.sub(r"(\\*)('|$)", lambda match: match[1] * 2 + ("\\'" if match[2] else ""), value)
    return f"'{escaped}'"
