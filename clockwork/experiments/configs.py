"""What the chosen teacher brings to a command: Hydra overrides that stand before the user's own, which win."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from clockwork.errors import UserError

FOLDER = Path(__file__).parents[2] / "configs"


def compose_config(config: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A command's config as the command itself composes it, with what its teacher brings. Hydra is initialised."""
    return compose(config, [*teacher_overrides(config, overrides), *overrides])


def teacher_overrides(config: str, overrides: Sequence[str]) -> list[str]:
    """The config groups (`prompts=…`, `metrics=…`) that a teacher's `brings` names for a command.

    Args:
        config: The command's, such as `train`.
        overrides: The user's; the teacher is theirs, or else the command's own.

    Raises:
        UserError: A sweep over teachers that bring different ones.
    """
    chosen = [found[1] for word in overrides if (found := re.match(r"teacher=['\"]?([\w,]+)", word))]
    names = chosen[-1].split(",") if chosen else _default_teacher(config)
    brought = {name: _groups(config, name) for name in names}
    if len({tuple(groups) for groups in brought.values()}) > 1:
        raise UserError(f"the teachers {', '.join(names)} bring different prompts or metrics: run one after the other")
    return next(iter(brought.values()), [])


def user_overrides(config: str, overrides: Sequence[str]) -> list[str]:
    """Those of a running command without what the teacher brought."""
    return list(overrides[len(teacher_overrides(config, overrides)) :])


def _groups(config: str, teacher: str) -> list[str]:
    named = _brings(teacher).get(config, {})
    return [f"{key}={value}" for key, value in named.items() if (FOLDER / str(key)).is_dir()]


def _brings(teacher: str) -> DictConfig:
    """With what the yaml takes over from another by `defaults`."""
    file = FOLDER / "teacher" / f"{teacher}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(other.stem for other in file.parent.glob("*.yaml")))
        raise UserError(f"no teacher {teacher!r}: choose among {known}, or write {file.name} (docs/extending.md)")
    content = OmegaConf.load(file)
    assert isinstance(content, DictConfig)
    bases = [_brings(base) for base in content.get("defaults", []) if base != "_self_"]
    merged = OmegaConf.merge(*bases, content.get("brings", {}))
    assert isinstance(merged, DictConfig)
    return merged


def _default_teacher(config: str) -> list[str]:
    """Of a command's config, if it has one."""
    content: Any = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{config}.yaml"))
    found: list[str] = []
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            found = found if entry == "_self_" else _default_teacher(entry) or found
        else:
            found = [name for key, name in entry.items() if key.split()[-1] == "teacher"] or found
    return found
