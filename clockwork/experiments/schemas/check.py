"""Checks a composed config against dataclasses, without importing anything heavy.

A dataclass describes a config or a config group: one field per key, whose type says what is allowed. Types are `int`,
`float`, `str`, `bool`, `None`, `Any`, `Literal`, lists, dicts, unions and other dataclasses; `Annotated` adds a
`Bounds` or a `Rule`. A field with the default `ABSENT` describes a key that may be absent.

A group with several possible dataclasses is described by their union; the one whose `_target_` is the config's applies,
and of several without `_target_` the one whose keys fit best.
A dataclass that derives from `Open` describes a foreign `_target_`: keys other than its own are allowed.
"""

import math
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from omegaconf import DictConfig, Node, OmegaConf

from clockwork.errors import UserError
from clockwork.experiments.schemas.describe import arms, base_of, describe, groups_of, hints_of, known_keys, unknown_key
from clockwork.experiments.schemas.rules import ABSENT, HYDRA_KEYS, Open


def check(config: DictConfig, schema: type) -> None:
    """Checks a composed config, and brings values with several spellings into their normal form.

    Values that are missing (`???`) are not checked.

    Args:
        config: The config. Other spellings (`schedule=[2,4]`, `prompt=5`) are replaced in it.
        schema: The dataclass that describes it.

    Raises:
        UserError: A key is unknown or missing, or a value is not allowed. The message names the key, the value and what
            is allowed.
    """
    _check_keys(config, OmegaConf.to_container(config, resolve=True), schema, "", schema)


class _NotAllowedError(Exception):
    """A value does not fit a type."""


def _check_keys(node: Any, plain: Any, group: Any, prefix: str, schema: type) -> None:
    hints = hints_of(group)
    for key in plain:
        is_hydras = "_target_" in plain and key in HYDRA_KEYS
        if key not in hints and not is_hydras and not issubclass(group, Open):
            raise UserError(unknown_key(f"{prefix}{key}", schema, group))
    optional = {field.name for field in fields(group) if field.default is ABSENT}
    for key, hint in hints.items():
        if key not in plain:
            if key in optional:
                continue
            kind = "one of its configs" if all(map(is_dataclass, arms(hint))) else describe(hint)
            raise UserError(f"{prefix}{key} is not set: pass {prefix}{key}=<{kind}>")
        _check_value(node, key, plain[key], hint, f"{prefix}{key}", schema)
    if (relation := getattr(group, "relation", None)) and (problem := relation(plain)):
        raise UserError(problem)


def _check_value(parent: Any, key: Any, value: Any, hint: Any, name: str, schema: type) -> None:
    """Checks one value; `parent` is the live node that holds it under `key`, or None behind an interpolation."""
    if value == "???":
        return
    child: Node | None = None if parent is None else parent._get_node(key)
    if child is not None and child._is_interpolation():
        if str(child._value())[2:-1] in known_keys(schema):
            return  # it is checked, and reported, as the key that it refers to
        parent = child = None
    groups = groups_of(hint)
    if isinstance(value, dict) and groups:
        _check_keys(child, value, _chosen(groups, value), f"{name}.", schema)
        return
    item = next((get_args(arm)[0] for arm in map(base_of, arms(hint)) if get_origin(arm) is list), None)
    if isinstance(value, list) and is_dataclass(item):
        for number, each in enumerate(value):
            _check_value(child, number, each, item, f"{name}[{number}]", schema)
    of_keys = next((get_args(arm)[1] for arm in map(base_of, arms(hint)) if get_origin(arm) is dict), None)
    for each in value if isinstance(value, dict) and of_keys is not None else ():
        _check_value(child, each, value[each], of_keys, f"{name}.{each}", schema)
    try:
        normal = _convert(value, hint)
    except _NotAllowedError:
        raise UserError(f"{name}={_shown(value)} is not allowed: use {describe(hint)}") from None
    if normal != value and parent is not None:
        parent[key] = normal


def _convert(value: Any, hint: Any) -> Any:
    """The value in its normal form; raises `_NotAllowedError`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        value = _convert(value, arguments[0])
        try:
            for rule in arguments[1:]:
                value = rule(value)
        except (ValueError, TypeError):
            raise _NotAllowedError from None
        return value
    if origin in (Union, UnionType):
        return _first_that_fits(value, sorted(arms(hint), key=lambda arm: base_of(arm) is str))
    if origin is Literal:
        return _one_of(value, arguments)
    if origin is list and isinstance(value, list):
        return [_convert(item, arguments[0]) for item in value]
    if origin is dict and isinstance(value, dict):
        return {key: _convert(item, arguments[1]) for key, item in value.items()}
    if hint is Any or (is_dataclass(hint) and isinstance(value, dict)) or (hint is NoneType and value is None):
        return value
    if hint is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    number = {int: int, float: int | float, bool: bool}.get(hint)
    if number is None or not isinstance(value, number) or (isinstance(value, bool) and hint is not bool):
        raise _NotAllowedError
    return value if math.isfinite(value) else _refuse()


def _refuse() -> Any:
    raise _NotAllowedError


def _first_that_fits(value: Any, arms: list[Any]) -> Any:
    for arm in arms:
        try:
            return _convert(value, arm)
        except _NotAllowedError:
            continue
    raise _NotAllowedError


def _one_of(value: Any, choices: tuple[Any, ...]) -> Any:
    return value if value in choices and type(value) in {type(choice) for choice in choices} else _refuse()


def _chosen(groups: list[type], value: dict[str, Any]) -> type:
    """The dataclass that describes a group, by its `_target_`; without one, the dataclass whose keys fit best."""
    target = value.get("_target_")
    matching = [group for group in groups if target in (get_args(hints_of(group).get("_target_")) or (None,))]
    if matching:
        return max(matching, key=lambda group: _fit(group, set(value)))
    return next((group for group in groups if issubclass(group, Open)), groups[0])


def _fit(group: type, keys: set[str]) -> tuple[bool, int]:
    """Whether a dataclass has all the keys of a config and no others that are required; and how many are required."""
    required = {field.name for field in fields(group) if field.default is not ABSENT}
    known = keys <= hints_of(group).keys()
    return required <= keys and (known or issubclass(group, Open)), len(required & keys)


def _shown(value: Any) -> str:
    """A value as it is passed on the command line."""
    if isinstance(value, list):
        return f"[{','.join(map(_shown, value))}]"
    words = {None: "null", True: "true", False: "false", "": "''"}
    return words[value] if value is None or isinstance(value, bool) or value == "" else str(value)
