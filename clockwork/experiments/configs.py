"""Composes and checks the configs of the commands.

What the chosen teacher brings to a command are Hydra overrides before the user's own, which win.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf, flag_override

from clockwork.errors import MissingFileError, UserError
from clockwork.experiments import config_files
from clockwork.experiments.schemas import check, schema_of


def compose_config(config: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Composes and checks a command's config as the command itself does.

    Args:
        config: The command's, such as `train`. Hydra is initialised.
        overrides: The user's; what their teacher brings is added.

    Raises:
        UserError: A key or value is not allowed.
    """
    words = [*teacher_overrides(config, overrides), *overrides]
    composed = compose(config, words, return_hydra_config=True)
    choices = composed.hydra.runtime.choices
    with flag_override(composed, ["struct", "readonly"], [False, False]):
        for key, value in composed.items_ex(resolve=False):
            if chosen := re.fullmatch(r"\$\{hydra:runtime\.choices\.(\w+)\}", str(value)):
                composed[key] = choices[chosen[1]]
        del composed["hydra"]
    check_config(config, composed, choices)
    return composed


def check_config(config: str, composed: DictConfig, choices: Mapping[str, Any]) -> None:
    """Checks a composed config of a command, and brings its values into their normal form.

    Args:
        config: The command's.
        composed: The composed config.
        choices: The chosen config of each group, as in `hydra.runtime.choices`.

    Raises:
        UserError: A key or value is not allowed.
    """
    chosen = choices.get("sweep")
    if chosen is not None and chosen not in GlobalHydra.instance().config_loader().get_group_options("sweep"):
        raise UserError(unknown_choice("sweep", chosen))  # Hydra ignores unknown configs of an optional group
    check(composed, schema_of(config, composed))


def unknown_choice(group: str, name: str) -> str:
    """Returns the message about a config that a group does not have."""
    stems = (file.stem for file in (config_files.FOLDER / group).glob("*.yaml"))
    names = sorted(stems, key=lambda stem: (int(stem) if stem.isdigit() else 0, stem))
    if group == "hydra/launcher":
        return f'{group}={name} is not installed: pip install "clockwork-diffusion[launchers]"'
    return f"{group}={name} is not allowed: use one of {', '.join(names)}"


def teacher_overrides(config: str, overrides: Sequence[str]) -> list[str]:
    """The config groups (`prompts=…`, `metrics=…`) that a teacher's `brings` names for a command.

    Args:
        config: The command's, such as `train`.
        overrides: The user's; the teacher is theirs, or else the command's own.

    Raises:
        UserError: A sweep over teachers that bring different ones, or a group that is null, which Hydra does not take.
    """
    for word in overrides:
        group = word.lstrip("+").removesuffix("=null")
        if word.endswith("=null") and (config_files.FOLDER / group).is_dir():
            raise UserError(unknown_choice(group, "null"))
    chosen = [match[1] for word in overrides if (match := re.match(r"teacher=['\"]?([\w,]+)", word))]
    names = chosen[-1].split(",") if chosen else _default_teacher(config)
    brought = {name: _groups(config, name) for name in names}
    if len({tuple(groups) for groups in brought.values()}) > 1:
        raise UserError(f"the teachers {', '.join(names)} bring different prompts or metrics: run one after the other")
    return next(iter(brought.values()), [])


def user_overrides(config: str, overrides: Sequence[str]) -> list[str]:
    """Those of a running command without what the teacher brought."""
    return list(overrides[len(teacher_overrides(config, overrides)) :])


def teacher_config(name: str) -> DictConfig:
    """A teacher's yaml, with what it takes over from others by `defaults`."""
    return _group_config("teacher", name)


def adaptor_config(name: str) -> DictConfig | None:
    """Loads an adaptor's yaml, with what it takes over from others by `defaults`.

    Args:
        name: The name of the adaptor.

    Returns:
        The config; None if `configs/adaptor` has none of this name.
    """
    return _group_config("adaptor", name) if (config_files.FOLDER / "adaptor" / f"{name}.yaml").is_file() else None


def rival_config(name: str) -> DictConfig:
    """Loads a rival's yaml, with what it takes over from others by `defaults`."""
    return _group_config("rival", name)


def _group_config(group: str, name: str) -> DictConfig:
    """Loads the yaml of a group, with what it takes over from others of the group by `defaults`."""
    file = config_files.FOLDER / group / f"{name}.yaml"
    if not file.is_file():
        known = ", ".join(sorted(other.stem for other in file.parent.glob("*.yaml")))
        raise MissingFileError(f"no {group} {name!r}: choose among {known}, or write {file.name} (docs/extending.md)")
    content = OmegaConf.load(file)
    assert isinstance(content, DictConfig)
    bases = [_group_config(group, base) for base in content.pop("defaults", []) if base != "_self_"]
    merged = OmegaConf.merge(*bases, content)
    assert isinstance(merged, DictConfig)
    return merged


def override(key: str, value: Any) -> str:
    """As Hydra wants it: a value with commas in quotes."""
    return f"{key}='{value}'" if "," in str(value) else f"{key}={'null' if value is None else value}"


def shell(script: str, overrides: Sequence[str]) -> str:
    """A command as it is typed."""
    words = [f'"{word}"' if "'" in word or "[" in word else word for word in overrides]
    return " ".join([f"python scripts/{script}.py", *words])


def _groups(config: str, teacher: str) -> list[str]:
    named = teacher_config(teacher).get("brings", {}).get(config, {})
    return [f"{key}={value}" for key, value in named.items() if (config_files.FOLDER / str(key)).is_dir()]


def _default_teacher(config: str) -> list[str]:
    """Of a command's config, if it has one."""
    content: Any = OmegaConf.to_container(OmegaConf.load(config_files.FOLDER / f"{config}.yaml"))
    names: list[str] = []
    for entry in content.get("defaults", []):
        if isinstance(entry, str):
            names = names if entry == "_self_" else _default_teacher(entry) or names
        else:
            names = [name for key, name in entry.items() if key.split()[-1] == "teacher"] or names
    return names
