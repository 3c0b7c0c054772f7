"""What is installed: imports of the core, extras, configs, and messages about what is missing."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from helpers.commands import ROOT

import clockwork
from clockwork.errors import MissingExtraError, import_extra
from clockwork.experiments import cli
from clockwork.experiments.config_files import FOLDER

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {"torch", "diffusers", "transformers", "safetensors", "huggingface_hub", "numpy", "tqdm"}
LOADED = """
import sys
import torch, diffusers
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
before = set(sys.modules)
import clockwork
assert not {name for name in set(sys.modules) - before if not name.startswith("clockwork")}, "import clockwork"
clockwork.enable, clockwork.load_adaptor, clockwork.load_teacher, clockwork.SplitUNet
from importlib.metadata import packages_distributions
print(*sorted({name.partition(".")[0] for name in set(sys.modules) - before} & set(packages_distributions())))
"""
BLOCKED = """
import builtins
from importlib import import_module
real = builtins.__import__
def blocked(name, globals=None, *rest, **options):
    by_us = (globals or {}).get("__name__", "").startswith("clockwork")
    if by_us and name.partition(".")[0] in BLOCK:  # other libraries may look for each other
        raise ModuleNotFoundError(f"{globals['__name__']} imports {name}")
    return real(name, globals, *rest, **options)
builtins.__import__ = blocked
from clockwork.experiments import cli, command
for verb in VERBS:
    import_module(cli.COMMANDS[verb].function.partition(":")[0])
"""
MODULES = {
    "hydra-core": "hydra",
    "open_clip_torch": "open_clip",
    "pyyaml": "yaml",
}  # others are named as their distribution is


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def modules_of(extra: str) -> set[str]:
    """The modules that an extra installs, with those of the extras in it."""
    found: set[str] = set()
    for line in PROJECT["optional-dependencies"][extra]:
        if inner := re.fullmatch(r"clockwork-diffusion\[(.*)\]", line):
            found |= {name for each in inner[1].split(",") for name in modules_of(each)}
        else:
            name = re.split("[>=<[]", line)[0]
            found.add(MODULES.get(name, name.replace("-", "_")))
    return found


def test_the_core_imports_its_own_dependencies_only() -> None:
    """`import clockwork` loads no other library, and its public names none but the core's that are not loaded yet."""
    assert set(python(LOADED).split()) <= {*CORE, "clockwork", "PIL", "tokenizers"}


@pytest.mark.slow  # three processes that import everything
@pytest.mark.parametrize(
    ("extra", "verbs"),
    [
        ("train", ["train"]),
        ("eval", ["evaluate", "generate", "export", "edit", "score", "drift", "perturb"]),
        ("report", ["report", "calibrate"]),
    ],
)
def test_an_extra_suffices_for_its_commands(extra: str, verbs: list[str]) -> None:
    """The commands' modules import without the libraries that only other extras have."""
    block = modules_of("all") - modules_of(extra)
    assert block
    python(f"BLOCK = {block!r}; VERBS = {verbs!r}\n{BLOCKED}")


def test_core_dependencies_are_few_and_dev_has_all() -> None:
    assert {re.split("[>=<]", line)[0].replace("-", "_") for line in PROJECT["dependencies"]} == CORE
    assert set(PROJECT["optional-dependencies"]) == {
        "train",
        "eval",
        "report",
        "rivals",
        "export",
        "openvino",
        "executorch",
        "launchers",
        "all",
        "dev",
    }
    assert modules_of("all") | {"omegaconf"} == cli.OPTIONAL  # Hydra's
    assert "clockwork-diffusion[all]" in PROJECT["optional-dependencies"]["dev"]


def test_a_missing_library_is_one_sentence() -> None:
    with pytest.raises(
        MissingExtraError, match=r'not_there is not installed: pip install "clockwork-diffusion\[eval\]"'
    ):
        import_extra("not_there.inner", "eval")


@pytest.mark.parametrize(("verb", "extra"), [("train", "train"), ("evaluate", "eval"), ("report", "report")])
def test_a_command_without_its_extra_is_one_sentence(
    verb: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def missing(*_: object) -> None:
        raise ModuleNotFoundError("No module named 'hydra'", name="hydra")

    monkeypatch.setitem(sys.modules, "clockwork.experiments.command", type("M", (), {"run_command": missing}))
    with pytest.raises(SystemExit) as stopped:
        cli.entry(verb)()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f'error: hydra is not installed: pip install "clockwork-diffusion[{extra}]"\n'


def test_another_distribution_of_the_same_package_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = {"clockwork": ["clockwork-diffusion", "clockwork"]}
    monkeypatch.setattr("importlib.metadata.packages_distributions", lambda: installed)
    monkeypatch.setattr(sys, "argv", ["clockwork", "train", "steps=0"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2 and "pip uninstall clockwork" in capsys.readouterr().err
    installed["clockwork"].remove("clockwork")
    assert not cli.other_distributions()


def test_configs_are_found_in_the_repository() -> None:
    assert FOLDER == ROOT / "configs" and not (Path(clockwork.__file__).parent / "configs").exists()
