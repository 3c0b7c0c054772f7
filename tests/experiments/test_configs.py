"""What a teacher brings to every command, and mistakes that show before its weights are loaded."""

import csv
from pathlib import Path
from typing import Any

import pytest
from helpers.commands import ROOT, answers_in_one_sentence, run
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from clockwork.experiments.configs import compose_config

CHEAP = {
    "no such teacher": ("train", ["teacher=sd16"], "choose among bk_sdm_base"),
    "teachers that bring different things": ("evaluate", ["teacher=sd15,miniature", "-m"], "run one after the other"),
    "SD on which captions": ("train", ["teacher=sd15"], "pass prompts.path=<a file of captions>"),
    "SD on which images": ("train", ["teacher=sd15", "data=noised"], "pass images.path=<a folder of captioned images>"),
    "a UNet on which captions": ("train", ["teacher=sd15", "objective=recover"], "pass prompts.path="),
    "SD against which images": ("evaluate", ["teacher=sd15"], "pass metrics.reference=<a folder of real images>"),
    "score against which images": ("score", ["teacher=sd15", "images=miniature"], "pass metrics.reference="),
    "no COCO": ("evaluate", ["teacher=sd21", "metrics=none", "prompts.path=nowhere"], "no caption file at nowhere"),
    "no COCO to perturb on": ("perturb", ["teacher=sdxl", "prompts.path=nowhere"], "no caption file at nowhere"),
    "no COCO to drift on": ("drift", ["teacher=sdxl", "prompts.path=nowhere"], "no caption file at nowhere"),
    "no adaptor": ("evaluate", ["adaptor=resnet", "steps=7"], "scripts/train.py adaptor=resnet"),
    "which adaptor": ("evaluate", ["adaptor=folder"], "pass adaptor.path="),
    "no adaptor in a sweep": ("evaluate", ["points=[{},{adaptor: unet, steps: 7}]"], "scripts/train.py adaptor=unet"),
    "no adaptor to generate with": ("generate", ["prompt=a", "adaptor=unet", "steps=7"], "scripts/train.py"),
    "no prompt": ("generate", [], 'pass prompt="<a text>"'),
    "no adaptor to edit with": (
        "edit",
        ["image=docs/grid.png", "source=a", "target=b", "adaptor=unet"],
        "scripts/train.py adaptor=unet",
    ),
}


@pytest.mark.parametrize("name", CHEAP)
def test_a_mistake_shows_before_a_teacher_is_loaded(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def load_teacher(**_: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("clockwork.teachers.load_teacher", load_teacher)
    script, arguments, expected = CHEAP[name]
    with pytest.raises(SystemExit) as stopped:
        output = tmp_path / "new.png" if script == "generate" else tmp_path
        run(monkeypatch, script, *arguments, *([] if script == "score" else [f"output={output}"]))
    answers_in_one_sentence(stopped.value.code, capsys, expected, tmp_path)


REAL = ["bk_sdm_base", "bk_sdm_small", "bk_sdm_tiny", "distilled", "efficient", "instaflow", "sd15", "sd21", "sdxl"]
SMALL = ["miniature", "miniature_distilled", "miniature_lcm", "miniature_sd"]


def composed(command: str, *overrides: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return compose_config(command, overrides)


def missing(cfg: DictConfig) -> set[str]:
    groups = [name for name in ("prompts", "images", "metrics") if name in cfg]
    return {key for name in groups for key in OmegaConf.missing_keys(cfg[name])}


def test_every_teacher_is_real_or_small() -> None:
    assert sorted(file.stem for file in (ROOT / "configs" / "teacher").glob("*.yaml")) == sorted(REAL + SMALL)


@pytest.mark.parametrize("teacher", REAL)
def test_a_real_teacher_brings_the_papers_values_and_nothing_of_the_miniature(teacher: str) -> None:
    train = composed("train", f"teacher={teacher}")
    assert (train.learning_rate, train.decay, train.guided, train.epochs, train.batch_size) == (1e-4, False, 0, 120, 16)
    assert missing(train) == {"prompts.path", "images.path"}
    evaluate = composed("evaluate", f"teacher={teacher}")
    assert missing(evaluate) == {"metrics.reference"} and evaluate.prompts.count == 5000
    edit = composed("edit", f"teacher={teacher}")
    assert (edit.guidance, edit.negative) == (15, "ugly, blurry, black, low res, unrealistic")
    calibrate = composed("calibrate", f"teacher={teacher}")
    assert missing(calibrate) == {"prompts.path"} and calibrate.count <= 64 and calibrate.batch_size <= 8
    others = ("perturb", "drift", "score") if teacher == "sd15" else ()  # their teachers are `evaluate`'s
    for cfg in (train, calibrate, evaluate, edit, *(composed(name, f"teacher={teacher}") for name in others)):
        brought = {key: value for key, value in cfg.items_ex(resolve=False) if key != "scale"}
        assert "miniature" not in OmegaConf.to_yaml(OmegaConf.create(brought))
        assert cfg.teacher.openclip == "ViT-g-14" and cfg.teacher.precision == "auto"


@pytest.mark.parametrize("teacher", SMALL)
def test_a_small_teacher_brings_its_own(teacher: str) -> None:
    train = composed("train", f"teacher={teacher}")
    assert (train.learning_rate, train.decay, train.guided, train.epochs) == (1e-3, True, 1, 15)
    evaluate, edit = composed("evaluate", f"teacher={teacher}"), composed("edit", f"teacher={teacher}")
    assert (evaluate.prompts.split, evaluate.prompts.count, evaluate.metrics.reference) == ("test", 2000, 10000)
    calibrate = composed("calibrate", f"teacher={teacher}")
    assert (calibrate.prompts.split, calibrate.count) == ("train", 128)
    assert (edit.guidance, edit.negative, evaluate.guidance) == (2, "", 3)
    assert train.teacher.precision == "float32" and not missing(train)
    assert composed("train").learning_rate == 1e-3 and composed("edit").teacher.path == "miniature_sd"


def test_what_is_passed_wins_over_what_the_teacher_brings() -> None:
    assert composed("train", "teacher=sd15", "learning_rate=3").learning_rate == 3
    assert composed("train", "teacher=sd15", "+experiment=demo").epochs == 5
    assert composed("train", "prompts=miniature", "teacher=sd15").prompts.split == "test"
    assert "reference" not in composed("evaluate", "teacher=sd15", "metrics=none").metrics
    assert composed("train", "teacher=sd15", "precision=bfloat16").teacher.precision == "bfloat16"
    assert composed("train", "precision=bfloat16").teacher.precision == "bfloat16"
    learning_rates = [composed("train", f"teacher={t}", "objective=recover").learning_rate for t in ("sd15", SMALL[0])]
    assert learning_rates == [1e-5, 3e-4]


def test_the_printed_config_holds_what_the_teacher_brings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(monkeypatch, "evaluate", "--cfg", "job", "teacher=sd15", "output=here")
    printed = OmegaConf.create(capsys.readouterr().out)
    assert printed.metrics.list[0].name == "fid" and printed.output == "here"
    run(monkeypatch, "train", "teacher=sd15", "--cfg", "job", "--resolve")
    assert OmegaConf.create(capsys.readouterr().out).learning_rate == 1e-4


def test_a_callback_of_the_config_takes_part_in_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The shipped one logs Adam's learning rate of the epoch into the run's csv file."""
    few = ["steps=2", "adaptor.width=8", "prompts_per_epoch=2", "repeats_per_epoch=1", "val_prompts=0", "epochs=1"]
    quiet = ["prompts.count=20", "samples_every=0", "+trainer.enable_progress_bar=false", "device=cpu"]
    run(monkeypatch, "train", *few, *quiet, "callbacks=learning_rate", "learning_rate=0.003", f"output={tmp_path}")
    (log,) = tmp_path.rglob("metrics.csv")
    rows = list(csv.DictReader(log.open()))
    assert [row["lr-Adam"] for row in rows if row["lr-Adam"]] == ["0.003"]
