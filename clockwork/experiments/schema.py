"""Checks of a composed config against dataclasses, before anything heavy is imported.

A field's type is checked by an OmegaConf structured config, its range, choices and emptiness by its metadata. The
dataclasses of the commands and groups are in `schemas.py`.
"""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import Field, field, fields, make_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from clockwork.errors import UserError


def number(least: float | None = None, most: float | None = None, above: float | None = None) -> Any:
    """A field for a finite number, or a list of them, not below `least`, not over `most` and greater than `above`."""
    return field(default=MISSING, metadata={"least": least, "most": most, "above": above})


def one_of(*choices: str) -> Any:
    """A field for one of a few words."""
    return field(default=MISSING, metadata={"choices": choices})


def filled(**bounds: float) -> Any:
    """A field for a list or a text that is not empty; `bounds` are those of `number`."""
    return field(default=MISSING, metadata={"filled": True, **bounds})


def check(config: DictConfig, schema: type, prefix: str = "") -> None:
    """Checks a config.

    Args:
        config: What Hydra composed, or a group of it.
        schema: The dataclass that describes it; fields without a value in the config stay missing.
        prefix: The group's key with a dot, for messages.

    A field whose metadata names a `group` dataclass is checked with that.

    Raises:
        UserError: One sentence with the key, the value and what is allowed.
    """
    values: Any = config if prefix else OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    for key in values:
        if str(key) not in {described.name for described in fields(schema)}:
            names = ", ".join(sorted(described.name for described in fields(schema)))
            raise UserError(f"{prefix}{key} is not a key of this config: there are {names}")
    for described in fields(schema):
        if described.name in values and not OmegaConf.is_missing(values, described.name):
            _check_field(values, described, prefix)


def _check_field(values: DictConfig, described: Field[Any], prefix: str) -> None:
    key, value = described.name, values[described.name]
    group = described.metadata.get("group")
    if group is not None and isinstance(value, DictConfig):
        check(value, group, f"{prefix}{key}.")
        return
    node: Any = OmegaConf.structured(make_dataclass("Field", [(key, described.type, MISSING)]))
    problem: str | None = f"it must be {_kind(described.type)}"
    with suppress(OmegaConfBaseException):
        node[key] = value
        problem = next(_problems(node[key], described), None)
    if problem is not None:
        raise UserError(f"{prefix}{key}={_shown(value)} is not allowed: {problem}")


def _kind(kind: Any) -> str:
    """A field's type in words."""
    if isinstance(kind, UnionType):
        return " or ".join(_kind(part) for part in get_args(kind))
    if get_origin(kind) is list:
        return f"a list, each of them {_kind(get_args(kind)[0])}"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}
    return names.get(kind, "a group of keys")


def _problems(value: Any, described: Field[Any]) -> Iterator[str]:
    """What is wrong with a value of the right type."""
    bounds = described.metadata
    if bounds.get("filled") and value is not None and len(value) == 0:
        yield "it must not be empty"
    if value is not None and "choices" in bounds and value not in bounds["choices"]:
        yield f"use {', '.join(bounds['choices'])}"
    for item in value if isinstance(value, ListConfig | list | tuple) else (value,):
        if isinstance(item, int | float) and not isinstance(item, bool):
            yield from _outside(item, bounds)


def _outside(item: float, bounds: Any) -> Iterator[str]:
    if not math.isfinite(item):
        yield "it must be a finite number"
    least, most, above = (bounds.get(name) for name in ("least", "most", "above"))
    if least is not None and item < least:
        yield f"it must be at least {least:g}"
    if above is not None and item <= above:
        yield f"it must be more than {above:g}"
    if most is not None and item > most:
        yield f"it must be at most {most:g}"


def _shown(value: Any) -> str:
    plain = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
    return "null" if plain is None else str(plain)
