"""The commands, run in the test's own process."""

import importlib
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from clockwork.experiments.configs import teacher_overrides

ROOT = Path(__file__).parents[2]
# A training that is over in a second. By default the miniature has 50,000 captions, which take five seconds.
QUICK_TRAINING = [
    "epochs=1",
    "prompts_per_epoch=2",
    "repeats_per_epoch=1",
    "val_prompts=0",
    "samples_every=0",
    "logger=none",
    "prompts.count=100",
]
SHORT_TRAINING = [
    "steps=2",
    "adaptor.width=8",
    "prompts_per_epoch=4",
    "repeats_per_epoch=2",
    "batch_size=4",
    "val_prompts=4",
    "prompts.count=100",
]
TINY = ["epochs=1", "prompts_per_epoch=4", "repeats_per_epoch=1", "batch_size=4", "val_prompts=2", "prompts.count=100"]
QUIET = ["samples_every=0", "logger=none", "+trainer.enable_progress_bar=false", "device=cpu"]


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"scripts/{script}.py", *arguments])
    GlobalHydra.instance().clear()
    importlib.import_module(script).main()


def answers_in_one_sentence(status: object, capsys: pytest.CaptureFixture[str], expected: str, output: Path) -> None:
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert status == 2
    assert len(said) == 1 and expected in said[0]
    assert not list(output.iterdir())  # nothing half-written


def config(folder: Path, *overrides: str) -> DictConfig:
    places = [f"output={folder}/training", f"teachers={folder}/teachers"]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        words = [*TINY, *QUIET, *places, *overrides]
        composed = compose("train", [*teacher_overrides("train", words), *words], return_hydra_config=True)
    from hydra.core.hydra_config import HydraConfig

    HydraConfig.instance().set_config(composed)
    return composed
