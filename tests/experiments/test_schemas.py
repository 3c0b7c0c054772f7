"""What is allowed in a config: wrong commands are refused in one sentence before anything heavy is imported."""

import importlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from inspect import Parameter, signature
from typing import Any, get_args

import pytest
from helpers.commands import ROOT
from helpers.configs import changed, composed, refusal
from helpers.wrong_commands import CHOICES, IN_LISTS, UNKNOWN, WRONG
from hydra import initialize_config_dir
from hydra.utils import get_object
from omegaconf import OmegaConf

from clockwork.errors import UserError
from clockwork.experiments.build import editor_differences
from clockwork.experiments.command import MISTAKES
from clockwork.experiments.quoting import quoted
from clockwork.experiments.schemas import COMMANDS, groups, tables, teachers, training, types
from clockwork.experiments.schemas import editing as editing_schemas
from clockwork.experiments.schemas.describe import known_keys
from clockwork.experiments.schemas.rules import HYDRA_KEYS, Open
from clockwork.sampling.solvers import SOLVERS
from clockwork.teachers.architectures import ARCHITECTURES


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        yield


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_value_is_refused_with_its_key_and_what_is_allowed(command: str) -> None:
    message = refusal(command, changed)
    assert WRONG[command] in message and len(message.splitlines()) == 1
    names = [word.removeprefix("+").split("=") for word in command.split()[1:]]
    assert any(key in message and value.strip("'[]") in message for key, value in names)


@pytest.mark.parametrize("command", [*IN_LISTS, *CHOICES])
def test_a_wrong_item_or_choice_is_refused(command: str) -> None:
    message = refusal(command)
    assert all(part in message for part in (IN_LISTS | CHOICES)[command]) and len(message.splitlines()) == 1


@pytest.mark.parametrize("command", UNKNOWN)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(command: str) -> None:
    key, nearest = UNKNOWN[command]
    message = refusal(command)
    assert message.startswith(f"{key} is not a key of this config: ") and nearest in message.partition(": ")[2]


def test_there_are_enough_wrong_commands() -> None:
    assert len(WRONG) + len(UNKNOWN) + len(IN_LISTS) + len(CHOICES) >= 200
    assert {command.split()[0] for command in WRONG} == set(COMMANDS)


@pytest.mark.parametrize(
    ("word", "key", "normal"),
    [
        ("schedule=2", "schedule", "2"),
        ("schedule=[2,4]", "schedule", "2,4"),
        ("schedule=2,4", "schedule", "2,4"),
        ("schedule='2,4'", "schedule", "2,4"),
        ("schedule=clock2", "schedule", "clock2"),
        ("cut=stage1", "cut", "stage1"),
        ("cut=stage1_upsampled", "cut", "stage1_upsampled"),
        ("cut=[3,4]", "cut", "3,4"),
        ("cut=3,4", "cut", "3,4"),
        ("cut='3,4'", "cut", "3,4"),
        ("name=15", "name", "15"),
    ],
)
def test_spellings_of_one_value_are_brought_into_its_normal_form(word: str, key: str, normal: str) -> None:
    assert composed(f"train {word}")[key] == normal


def test_lists_hold_normal_forms_too() -> None:
    assert composed("drift cuts=[[3,4],layer1]").cuts == ["3,4", "layer1"]
    cfg = composed("evaluate adaptor=identity points=[{schedule:[2,4],cut:[3,4]},{schedule:5}]")
    assert cfg.points == [{"schedule": "2,4", "cut": "3,4"}, {"schedule": "5"}]
    cfg = composed("edit schedule=[2] generation.schedule=[3]")
    assert (cfg.inversion.schedule, cfg.generation.schedule) == ("2", "3")
    assert OmegaConf.to_container(cfg, resolve=False)["inversion"]["schedule"] == "${schedule}"


def test_a_point_of_an_edit_differs_in_both_phases_or_in_one() -> None:
    cfg = composed("edit generation.steps=4 points=[{adaptor:linear,schedule:2,inversion:{adaptor:identity}},{}]")
    points: Any = OmegaConf.to_container(cfg.points)
    inversion, generation = editor_differences(cfg, points[0])
    assert (inversion["adaptor"], generation["adaptor"]) == ("identity", "linear")
    assert inversion["schedule"] == generation["schedule"] == "2" and inversion["steps"] == 4
    both = editor_differences(cfg, points[1])
    assert [phase["adaptor"] for phase in both] == ["identity"] * 2


def test_with_m_lists_of_numbers_are_sweeps() -> None:
    assert quoted("schedule=2,4", multirun=True) == "schedule=2,4"
    assert quoted("steps=2,4") == "steps=2,4"


def test_pndm_calls_the_unet_once_more_than_it_has_steps() -> None:
    assert composed("train solver=pndm schedule=9").schedule == "9"
    assert "longer than the 9 steps" in refusal("train solver=pndm schedule=10")


def test_an_own_class_may_have_keys_of_its_own() -> None:
    adaptor = ["~adaptor.width", "~adaptor.blocks", "adaptor._target_=my.module.Blend", "+adaptor.depth=3"]
    assert composed(" ".join(["train", *adaptor])).adaptor.depth == 3
    assert "adaptor.inputs=[]" in refusal(" ".join(["train", *adaptor, "adaptor.inputs=[]"]))
    assert composed("train optimizer._target_=my.Optimizer +optimizer.momentum=2").optimizer.momentum == 2
    assert "above 0" in refusal("train optimizer._target_=my.Optimizer optimizer.lr=0")
    assert composed("evaluate prompts._target_=my.prompts +prompts.where=here").prompts.where == "here"
    assert composed("train teacher._target_=my.load +teacher.revision=main").teacher.revision == "main"
    assert "from 0 to 1000" in refusal("train teacher._target_=my.load teacher.guidance=-1")


def commands_of(group: str) -> list[str]:
    """The commands that have a config group."""
    with_group = [name for name, schema in COMMANDS.items() if any(f.name == group for f in fields(schema))]
    special = {
        "experiment": ["train"],
        "trainer": ["train"],
        "sweep": ["evaluate"],
        "table": ["evaluate"],
        "figure": ["evaluate"],
    }
    assert with_group or group in special, group
    return special.get(group, with_group)


def test_every_shipped_config_is_allowed() -> None:
    """Each config of each group: all its keys are known, and its values."""
    shipped = sorted((ROOT / "configs").glob("*/*.yaml"))
    assert len(shipped) > 70
    for number, file in enumerate(shipped):
        group = file.parent.name
        commands = commands_of(group)  # each config in one of them
        plus = "+" if group in ("experiment", "benchmark", "table", "figure") else ""
        config = composed(f"{commands[number % len(commands)]} {plus}{group}={file.stem}")
        assert group != "sweep" or len(config.points) > 1
        targets = re.findall(r"_target_: *([\w.]+)", file.read_text())
        assert group in ("callbacks", "data", "metrics", "edit_metrics") or set(targets) <= set(TARGETS), file
    for command in COMMANDS:
        composed(f"{command} stage=clip" if command == "miniature" else command)


GROUPS = [
    schema
    for module in (groups, tables, teachers, training, editing_schemas)
    for schema in vars(module).values()
    if isinstance(schema, type) and is_dataclass(schema) and not issubclass(schema, Open)
]
TARGETS: dict[str, Any] = {
    target: schema for schema in GROUPS for target in get_args(schema.__annotations__.get("_target_"))
}


@pytest.mark.parametrize("target", TARGETS)
def test_the_keys_of_a_group_are_arguments_of_what_it_builds(target: str) -> None:
    arguments = signature(get_object(target)).parameters
    keys = {field.name for field in fields(TARGETS[target])} - set(HYDRA_KEYS)
    if not any(argument.kind is Parameter.VAR_KEYWORD for argument in arguments.values()):
        assert keys <= set(arguments), keys - set(arguments)


def test_trainer_options_are_lightnings() -> None:
    from pytorch_lightning import Trainer

    assert {field.name for field in fields(training.Trainer)} <= set(signature(Trainer).parameters)


def test_solvers_and_architectures_are_those_of_the_library() -> None:
    assert set(get_args(types.Solver)) == set(SOLVERS) - {"ddim_inverse"}
    architectures = COMMANDS["random_teacher"].__annotations__["architecture"]
    assert set(get_args(architectures)) == set(ARCHITECTURES)
    assert "trainer.precision" in known_keys(COMMANDS["train"])


def test_every_command_has_a_config_and_a_schema() -> None:
    no_commands = {"command", "point"}
    assert {file.stem for file in (ROOT / "configs").glob("*.yaml")} - no_commands == set(COMMANDS)


CHECK = """
import importlib, sys
sys.path.insert(0, "scripts")
name, sys.argv = sys.argv[1], sys.argv[1:]
try:
    importlib.import_module(name).main()
finally:
    heavy = {"torch", "diffusers", "transformers", "pytorch_lightning", "wandb"} & set(sys.modules)
    print("heavy:", *heavy)
"""


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("train steps=0", "error: steps=0 is not allowed: use a whole number from 1 to 1000"),
        ("train stepps=8", "error: stepps is not a key of this config: did you mean steps?"),
        ("evaluate sweep=defalt", "error: sweep=defalt is not allowed: use one of "),
        ("evaluate hydra/launcher=dask", "error: hydra/launcher=dask is not installed: pip install "),
        ("train adaptor=null", "error: adaptor=null is not allowed: use one of "),
        ("perturb from_steps=[]", "error: from_steps=[] is not allowed: use a list, "),
        ("train steps=[", "error: 'steps=[' cannot be read: "),
        ("train steps=4,8", "error: 'steps=4,8' is a sweep: pass -m as well, or steps=[4,8] for a list"),
    ],
)
def test_a_wrong_command_ends_with_status_2_before_torch_is_imported(command: str, expected: str) -> None:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CHECK, *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(expected) and len(done.stderr.splitlines()) == 1
    assert done.stdout.split() == ["heavy:"]
    assert time.perf_counter() - start < 30  # a second on an idle core


def test_a_users_mistake_is_one_exception() -> None:
    assert issubclass(UserError, MISTAKES) and importlib.import_module("clockwork.experiments.schemas")
