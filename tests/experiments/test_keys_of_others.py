"""A key that only other configs of a group have: the message names them, and its advice helps."""

import re

import pytest
from helpers.commands import ROOT
from helpers.configs import composed, refusal
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.schemas import COMMANDS
from clockwork.experiments.schemas.describe import known_keys, unknown_key

KEYS = [
    (command, f"{group}.{key}")
    for command, schema in COMMANDS.items()
    for group in sorted({key for key in known_keys(schema) if "." not in key and (FOLDER / key).is_dir()})
    for key in sorted({key for file in (FOLDER / group).glob("*.yaml") for key in OmegaConf.load(file)} - {"defaults"})
]


def test_no_key_is_suggested_in_its_own_place() -> None:
    assert len(KEYS) > 300
    for command, key in KEYS:
        message = unknown_key(key, COMMANDS[command])
        if key.partition(".")[2] in known_keys(COMMANDS[command]):
            continue  # a key of the command itself, in the wrong place
        assert re.match(rf"{re.escape(key)} is a key of (\w+=\w+)( or \w+=\w+)*: pass \1, too$", message), message


@pytest.mark.parametrize(
    ("command", "advice"),
    [
        ("evaluate prompts.path=x", "pass prompts=captions, too"),
        (
            "evaluate prompts.column=text",
            "prompts=captions or prompts=drawbench or prompts=parti: pass prompts=captions, too",
        ),
        ("evaluate metrics=none metrics.reference=x", "pass metrics=coco, too"),
        ("train optimizer.weight_decay=0.1", "pass optimizer=adamw, too"),
        ("generate adaptor.path=x", "pass adaptor=folder, too"),
        ("train logger.project=x", "pass logger=wandb, too"),
        ("evaluate rival=tome rival.interval=2", "pass rival=deepcache2, too"),
    ],
)
def test_the_advice_helps(command: str, advice: str) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        assert refusal(command).endswith(advice)
        choice = advice.split()[-2].rstrip(",")
        words = [word for word in command.split() if not word.startswith(choice.partition("=")[0] + "=")]
        composed(" ".join([*words, choice]))


def test_a_key_of_a_group_that_the_command_does_not_have() -> None:
    assert unknown_key("images.path", COMMANDS["edit"]).startswith("images.path is not a key of this config: ")
