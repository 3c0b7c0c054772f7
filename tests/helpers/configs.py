"""Configs as commands compose them, and the sentences that wrong ones are refused with."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
from helpers.commands import ROOT
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from clockwork.experiments.command import MISTAKES, sentence
from clockwork.experiments.configs import check_config, compose_config
from clockwork.experiments.quoting import quoted


def composed(command: str) -> DictConfig:
    config, *words = command.split()
    return compose_config(config, [quoted(word) for word in words])


def refusal(command: str, compose: Callable[[str], DictConfig] = composed) -> str:
    with pytest.raises(MISTAKES) as refused:
        compose(command)
    return sentence(refused.value, command.split()[0])


@cache
def base(config: str, *choices: str) -> DictConfig:
    return compose_config(config, choices)


def changed(command: str) -> DictConfig:
    """As `composed`, faster: values are set in a copy of a composed config, as Hydra sets them, and checked."""
    config, *words = command.split()
    choices = [word for word in words if (ROOT / "configs" / word.lstrip("+").partition("=")[0]).is_dir()]
    cfg = copy.deepcopy(base(config, *choices))
    for override in OverridesParser.create().parse_overrides([quoted(word) for word in words if word not in choices]):
        OmegaConf.update(cfg, override.key_or_group, override.value(), merge=True, force_add=override.is_add())
    check_config(config, cfg, {})
    return cfg
