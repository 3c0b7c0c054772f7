"""The keys of a config's dataclasses, and what their types allow, in words."""

from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from clockwork.experiments.config_files import key_of_others
from clockwork.experiments.schemas.rules import HYDRA_KEYS, Bounds

NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", NoneType: "null"}


def unknown_key(key: str, schema: type, group: type | None = None) -> str:
    """Returns the message about a key that a config does not have, with the nearest keys that it or others have.

    Args:
        key: The dotted key.
        schema: The dataclass of the whole config.
        group: The dataclass of the group that the key is in.
    """
    above, _, name = key.rpartition(".")
    known = sorted((k for k in known_keys(schema) if above or not k.startswith("brings.")), key=len)
    if above in known and name not in known and (message := key_of_others(key)):
        return message
    in_group = (
        {k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == above} if group is None else hints_of(group)
    )
    names = [k for k in in_group if k not in HYDRA_KEYS]
    near = [_join(above, k) for k in get_close_matches(name, names, 1)]
    if not near and "[" not in above:
        near += [k for k in known if k.rpartition(".")[2] == name]  # in the wrong place, such as teacher.steps
        near += [_join(above, k) for k in names if len(name) > 2 and k.startswith(name)]
        near += get_close_matches(key, known, 1, 0.7)
    advice = f"use {', '.join(names)}" if above and names else "--cfg job prints its keys"
    return f"{key} is not a key of this config: " + (f"did you mean {near[0]}?" if near else advice)


def _join(above: str, key: str) -> str:
    return f"{above}.{key}" if above else key


@cache
def known_keys(schema: type) -> frozenset[str]:
    """Returns all dotted keys that a dataclass and those of its groups describe."""
    keys = set()
    for key, hint in hints_of(schema).items():
        below = {f"{key}.{k}" for group in groups_of(hint) for k in known_keys(group)}
        keys |= {key, *below}
    return frozenset(keys)


def describe(hint: Any) -> str:
    """Returns what a type allows, in words."""
    members = arms(hint)
    if len(members) > 1:
        null_first = sorted(members, key=lambda member: member is not NoneType)
        return " or ".join(dict.fromkeys(describe(member) for member in null_first))
    if get_origin(hint) is Annotated:
        base, *rules = get_args(hint)
        words = "".join(rule.words if isinstance(rule, Bounds) else f", {rule.words}" for rule in rules)
        return words.removeprefix(", ") if base is Any else describe(base) + words
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is list:
        return f"a list, each item {describe(get_args(hint)[0])}"
    return NAMES.get(hint, "keys with values")


def arms(hint: Any) -> tuple[Any, ...]:
    """The members of a union; another type by itself."""
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def groups_of(hint: Any) -> list[type]:
    """The dataclasses among the members of a union."""
    return [arm for arm in arms(hint) if isinstance(arm, type) and is_dataclass(arm)]


def base_of(hint: Any) -> Any:
    """A type without its annotations."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


@cache
def hints_of(schema: Any) -> dict[str, Any]:
    return {} if schema is None else get_type_hints(schema, include_extras=True)
