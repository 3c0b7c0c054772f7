"""What is allowed in a config: wrong commands are refused in one sentence before anything heavy is imported."""

import copy
import importlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import Parameter, signature
from typing import Any, get_args

import pytest
from helpers.commands import ROOT
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from clockwork.errors import UserError
from clockwork.experiments.command import MISTAKES, quoted, sentence
from clockwork.experiments.configs import check_config, compose_config
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


# command: what the sentence names besides the key and its value
WRONG = {
    # numbers: type, range, NaN, null
    "train steps=0": "from 1 to 1000",
    "train steps=-1": "from 1 to 1000",
    "train steps=8.5": "a whole number",
    "train steps=abc": "a whole number",
    "train steps=nan": "a whole number",
    "train steps=null": "a whole number",
    "train steps=true": "a whole number",
    "train steps=[8]": "a whole number",
    "train steps=10000": "from 1 to 1000",
    "train seed=abc": "a whole number",
    "train seed=-1": "from 0",
    "train seed=0.5": "a whole number",
    "train seed=null": "a whole number",
    "train guidance=-1": "of at least 0",
    "train guidance=nan": "a number",
    "train guidance=inf": "a number",
    "train guidance=high": "a number",
    "train guidance=null": "a number",
    "train epochs=0": "of at least 1",
    "train epochs=1.5": "a whole number",
    "train epochs=null": "a whole number",
    "train batch_size=0": "of at least 1",
    "train batch_size=x": "a whole number",
    "train generation_batch_size=0": "of at least 1",
    "train prompts_per_epoch=0": "of at least 1",
    "train repeats_per_epoch=0": "of at least 1",
    "train learning_rate=0": "above 0",
    "train learning_rate=-0.5": "above 0",
    "train learning_rate=nan": "above 0",
    "train learning_rate=fast": "a number",
    "train guided=-1": "of at least 0",
    "train ema=1": "above 0 and below 1",
    "train ema=0": "above 0 and below 1",
    "train ema=None": "null or a number",
    "train val_prompts=-1": "of at least 0",
    "train patience=0": "of at least 1",
    "train samples_every=-1": "of at least 0",
    "train max_examples_gb=0": "above 0",
    "train trainer.devices=0": "of at least 1",
    "train trainer.gradient_clip_val=0": "above 0",
    "train teacher.guidance=-2": "of at least 0",
    "train teacher.resolution=0": "of at least 1",
    "train adaptor.width=0": "of at least 1",
    "train adaptor.blocks=two": "a whole number",
    "train optimizer.lr=0": "above 0",
    "train optimizer=adamw optimizer.weight_decay=-1": "of at least 0",
    "train +optimizer.betas=[0.9,1]": "below 1",
    "train lr_scheduler.T_max=0": "of at least 1",
    "train objective=recover objective.features=-1": "of at least 0",
    "train prompts.count=0": "of at least 1",
    "train prompts=captions prompts.path=a prompts.sample=x": "a whole number",
    "train images.count=few": "a whole number",
    "evaluate batch_size=0": "of at least 1",
    "evaluate prompts.count=-5": "of at least 1",
    "evaluate metrics.reference=1": "of at least 2",
    "evaluate metrics.reference=null": "a whole number",
    "evaluate teacher=sd15 metrics.size=0": "of at least 1",
    "generate count=0": "of at least 1",
    "generate count=x": "a whole number",
    "edit tau_f=2": "from 0 to 1",
    "edit tau_a=-0.1": "from 0 to 1",
    "edit tau_f=nan": "from 0 to 1",
    "edit inversion.steps=0": "from 1 to 1000",
    "edit generation.steps=all": "a whole number",
    "edit +benchmark=scenes benchmark.count=0": "of at least 1",
    "bench batch=0": "of at least 1",
    "bench rounds=0": "of at least 1",
    "drift count=0": "of at least 1",
    "drift batch_size=0": "of at least 1",
    "perturb alpha=x": "a number",
    "perturb alpha=3": "from 0 to 1",
    "perturb alpha=nan": "from 0 to 1",
    "perturb alpha=true": "a number",
    "perturb grids=-1": "of at least 0",
    "perturb count=0": "of at least 1",
    "score resolution=0": "of at least 1",
    "score batch_size=no": "a whole number",
    "random_teacher seed=x": "a whole number",
    "miniature stage=clip scenes=0": "of at least 1",
    "miniature stage=clip clip.steps=0": "of at least 1",
    "miniature stage=clip trainer.devices=0": "of at least 1",
    # words, true or false
    "train precision=int3": "float32",
    "train device=gpu": "cuda",
    "train device=null": "cuda",
    "train solver=euler": "one of dpm++",
    "train solver=ddim_inverse": "one of dpm++",
    "train keep=worst": "one of last, best",
    "train examples_device=disk": "one of auto, device, cpu",
    "train features=mine": "one of teacher, own",
    "train decay=maybe": "true or false",
    "train decay=1": "true or false",
    "train trainer.precision=16-true": "one of 32-true",
    "train logger.name=tensorboard": "one of csv",
    "train prompts.split=foo": "one of train, validation, test",
    "train images.split=null": "one of train",
    "train teacher.precision=int8": "one of auto",
    "train teacher.flow=1 teacher=instaflow": "true or false",
    "evaluate metrics.latency=fast": "true or false",
    "edit resize=maybe": "true or false",
    "edit replay=2": "true or false",
    "perturb layers=middle": "one of up",
    "perturb over=batch": "one of example",
    "report what=everything": "one of tables",
    "random_teacher architecture=sd3": "one of sd15",
    "random_teacher precision=auto": "one of float32",
    "miniature stage=unet": "one of autoencoder",
    "gpu_check small=1": "true or false",
    # texts
    "train output=null": "a text",
    "train output=''": "not empty",
    "train output=[a]": "a text",
    "train teacher.path=null": "a text",
    "evaluate adaptors=null": "a text",
    "generate prompt=null": "a text",
    "generate prompt=''": "not empty",
    "generate output=null": "a text",
    "edit negative=null": "a text",
    "report rows=null": "a text",
    "random_teacher path=''": "not empty",
    # lists
    "train adaptor.inputs=[]": "not empty",
    "train adaptor.inputs=r_in": "a list",
    "train adaptor.inputs=[r_in,prompt]": "one of r_in",
    "train adaptor.inputs=null": "a list",
    "train step_counts=[4]": "[lowest,highest]",
    "train step_counts=[8,4]": "[lowest,highest]",
    "train step_counts=8": "a list",
    "train scales=[1]": "[lowest,highest]",
    "train scales=[1,x]": "a number",
    "train scales=[]": "[lowest,highest]",
    "train objective=guidance scales=[-1,8]": "of at least 0",
    "drift cuts=[]": "not empty",
    "drift cuts=3": "a list",
    "drift cuts=null": "a list",
    "drift cuts=[stage1,bottom]": "stage1",
    "perturb from_steps=[]": "not empty",
    "perturb from_steps=3": "a list",
    "perturb from_steps=[-1]": "of at least 0",
    "perturb from_steps=[20]": "from 0 to 19",
    "perturb from_steps=null": "a list",
    "evaluate points=[]": "not empty",
    "evaluate points=3": "a list",
    "evaluate points=[3]": "keys with values",
    "edit points=[]": "not empty",
    "edit points=null": "a list",
    "tables tables=3": "a list",
    "tables tables=[one]": "a whole number",
    "tables train=epochs": "a list",
    "tables figures=null": "a list",
    # schedules and cuts
    "train schedule=every2": "clock2",
    "train schedule=clock0": "clock2",
    "train schedule=[]": "clock2",
    "train schedule=[1,2]": "from 2 on",
    "train schedule=[2.5]": "clock2",
    "train schedule=true": "clock2",
    "train schedule=null": "clock2",
    "train schedule=[9]": "longer than the 8 steps",
    "train schedule=5,6,7,8 steps=6": "longer than the 6 steps",
    "generate prompt=a schedule=9": "longer than the 8 steps",
    "evaluate adaptor=identity schedule=9": "longer than the 8 steps",
    "edit inversion.schedule=1": "from 2 on",
    "train cut=3": "stage1",
    "train cut=stage0": "stage1",
    "train cut=[3]": "stage1",
    "train cut=[3,4,5]": "stage1",
    "train cut=[a,b]": "stage1",
    "train cut=null": "stage1",
}
IN_LISTS = {
    "evaluate points=[{steps:0}]": ("points[0].steps=0", "from 1 to 1000"),
    "evaluate points=[{},{schedule:every2}]": ("points[1].schedule=every2", "clock2"),
    "evaluate points=[{adaptor:identity,steps:3,schedule:[4]}]": ("schedule 4", "longer than the 3 steps"),
    "evaluate points=[{stepps:3}]": ("points[0].stepps", "did you mean points[0].steps"),
    "edit points=[{steps:3}]": ("points[0].steps is not a key", "use adaptor, schedule"),
}
# command: the key it names, and the key it suggests
UNKNOWN = {
    "train stepps=8": ("stepps", "steps"),
    "train +steps_=3": ("steps_", "steps"),
    "train batchsize=3": ("batchsize", "batch_size"),
    "train lr=1": ("lr", "optimizer.lr"),
    "train teacher.foo=1": ("teacher.foo", "teacher."),
    "train +teacher.pth=a": ("teacher.pth", "teacher.path"),
    "train teacher.steps=4": ("teacher.steps", "steps"),
    "train +trainer.limit_train_batchs=2": ("trainer.limit_train_batchs", "trainer.limit_train_batches"),
    "train +trainer.max_epochs=2": ("trainer.max_epochs", "trainer.min_epochs"),
    "train +optimizer.beta=[0.9,0.99]": ("optimizer.beta", "optimizer.betas"),
    "train adaptor.widht=3": ("adaptor.widht", "adaptor.width"),
    "train +brings.train.epoch=3": ("brings.train.epoch", "brings.train.epochs"),
    "train adaptr=resnet": ("adaptr", "adaptor"),
    "train point=[{}]": ("point", "--cfg job"),
    "evaluate epochs=3": ("epochs", "--cfg job"),
    "evaluate +prompts.limit=4": ("prompts.limit", "prompts.split"),
    "evaluate metrics.refrence=9": ("metrics.refrence", "metrics.reference"),
    "generate promt=a": ("promt", "prompt"),
    "edit sourc=a": ("sourc", "source"),
    "edit inversion.step=3": ("inversion.step", "inversion.steps"),
    "bench round=3": ("round", "rounds"),
    "drift cut_s=[]": ("cut_s", "cuts"),
    "perturb alhpa=1": ("alhpa", "alpha"),
    "score resolutions=3": ("resolutions", "resolution"),
    "report row=a": ("row", "rows"),
    "tables +table=3": ("table", "tables"),
    "gpu_check +smal=true": ("smal", "small"),
    "random_teacher arch=sd15": ("arch", "architecture"),
    "miniature stage=clip clip.stepz=3": ("clip.stepz", "clip.steps"),
}
CHOICES = {
    "evaluate sweep=defalt": ("sweep=defalt", "chain, chain_distilled, default, demo"),
    "train adaptor=transformer": ("adaptor=transformer", "identity, none, resnet"),
    "train prompts=coco": ("prompts=coco", "coco2014, coco2017"),
    "train objective=distil": ("objective=distil", "guidance, progressive, recover"),
    "train optimizer=sgd": ("optimizer=sgd", "adam, adamw"),
    "train teacher=sd16": ("sd16", "choose among bk_sdm_base"),
    "evaluate metrics=fid": ("metrics=fid", "coco, miniature, none"),
    "evaluate +table=9": ("table=9", "1, 2, 3"),
    "edit +benchmark=coco": ("benchmark=coco", "scenes"),
    "train ~steps": ("steps is not set", "pass steps="),
    "train ~lr_scheduler": ("lr_scheduler is not set", "pass lr_scheduler="),
    "train +steps=3": ("+steps", "without +"),
}


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
    cfg = composed("evaluate points=[{schedule:[2,4],cut:[3,4]},{schedule:5}]")
    assert cfg.points == [{"schedule": "2,4", "cut": "3,4"}, {"schedule": "5"}]
    cfg = composed("edit schedule=[2] generation.schedule=[3]")
    assert (cfg.inversion.schedule, cfg.generation.schedule) == ("2", "3")
    assert OmegaConf.to_container(cfg, resolve=False)["inversion"]["schedule"] == "${schedule}"


def test_with_m_lists_of_numbers_are_sweeps() -> None:
    assert quoted("schedule=2,4", multirun=True) == "schedule=2,4"
    assert quoted("steps=2,4") == "steps=2,4"


def test_pndm_calls_the_unet_once_more_than_it_has_steps() -> None:
    assert composed("train solver=pndm schedule=9").schedule == "9"
    assert "longer than the 9 steps" in refusal("train solver=pndm schedule=10")


def test_the_schedule_of_a_teacher_without_adaptor_does_not_matter() -> None:
    assert composed("evaluate schedule=9").schedule == composed("train objective=recover schedule=9").schedule == "9"


def test_an_own_class_may_have_keys_of_its_own() -> None:
    adaptor = ["~adaptor.width", "~adaptor.blocks", "adaptor._target_=my.module.Blend", "+adaptor.depth=3"]
    assert composed(" ".join(["train", *adaptor])).adaptor.depth == 3
    assert "adaptor.inputs=[]" in refusal(" ".join(["train", *adaptor, "adaptor.inputs=[]"]))
    assert composed("train optimizer._target_=my.Optimizer +optimizer.momentum=2").optimizer.momentum == 2
    assert "above 0" in refusal("train optimizer._target_=my.Optimizer optimizer.lr=0")
    assert composed("evaluate prompts._target_=my.prompts +prompts.where=here").prompts.where == "here"
    assert composed("train teacher._target_=my.load +teacher.revision=main").teacher.revision == "main"
    assert "of at least 0" in refusal("train teacher._target_=my.load teacher.guidance=-1")


def commands_of(group: str) -> list[str]:
    """The commands that have a config group."""
    with_group = [name for name, schema in COMMANDS.items() if any(f.name == group for f in fields(schema))]
    special = {"experiment": ["train"], "sweep": ["evaluate"], "table": ["evaluate"], "figure": ["evaluate"]}
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
        composed(f"{commands[number % len(commands)]} {plus}{group}={file.stem}")
        targets = re.findall(r"_target_: *([\w.]+)", file.read_text())
        assert group in ("data", "metrics", "edit_metrics") or set(targets) <= set(TARGETS), file
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
