"""The command calibrate: what it saves, who finds it, and its mistakes."""

import json
import random
import re
from pathlib import Path

import pytest
import torch
from helpers.calibration import small_sampler
from helpers.commands import ROOT, answers_in_one_sentence, run
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from PIL import Image

from clockwork.adaptors import Linear, load_adaptor, read_config
from clockwork.calibration.fit import calibrate_sampler
from clockwork.calibration.options import FitOptions
from clockwork.evaluation.rows import read_rows
from clockwork.experiments.calibrate import calibrate
from clockwork.experiments.configs import teacher_overrides
from clockwork.miniature.prompts import scene_prompts
from clockwork.teachers import load_teacher

FEW = ["steps=4", "prompts.count=100", "count=8", "held_out_every=4", "batch_size=8", "device=cpu"]
QUICK_ROWS = ["steps=4", "prompts.count=2", "metrics=none", "metrics.latency=false"]


@pytest.fixture(scope="module")
def adaptors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an adaptor for 4 steps."""
    folder = tmp_path_factory.mktemp("adaptors")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, "calibrate", *FEW, f"output={folder}")
    return folder


def folder_of(adaptors: Path) -> Path:
    return adaptors / "miniature" / "linear-stage1-clock2-dpm++-4-g3" / "adaptor"


def test_the_command_saves_what_the_library_fits(adaptors: Path) -> None:
    """With its figures in config and model card, an image of them, and no progress files."""
    folder = folder_of(adaptors)
    adaptor, point = load_adaptor(folder)
    sampler = small_sampler(teacher=load_teacher("miniature", guidance=3.0, device="cpu"))
    drawn = random.Random("0/calibration").sample(scene_prompts("train", 100), 8)
    expected = calibrate_sampler(sampler, drawn, options=FitOptions(held_out_every=4))
    assert isinstance(adaptor, Linear) and point == expected.adaptor.point and adaptor.steps == (2, 4)
    assert all(
        torch.equal(weight, adaptor.state_dict()[name]) for name, weight in expected.adaptor.state_dict().items()
    )
    figures = read_config(folder)["calibration"]
    assert (figures["captions"], figures["negatives"], figures["steps"]) == (8, [""], expected.figures()["steps"])
    card = (folder / "README.md").read_text()
    assert "in closed form on 8 captions" in card
    assert all(f"| {fit.step} | {fit.error:.3f} | {fit.identity_error:.3f} |" in card for fit in expected.fits)
    assert {file.name for file in folder.parent.iterdir()} == {"adaptor", "config.json", "errors.png"}
    with Image.open(folder.parent / "errors.png") as image:
        assert image.width > 300


def test_a_finished_calibration_is_left_alone_and_another_one_refused(
    adaptors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Batches do not change the result; the seed does, and draws other captions."""
    files = {file: file.stat().st_mtime_ns for file in folder_of(adaptors).iterdir()}
    run(monkeypatch, "calibrate", *FEW, f"output={adaptors}", "batch_size=4")
    assert f"already calibrated: {folder_of(adaptors)}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "calibrate", *FEW, f"output={adaptors}", "seed=1", "negatives=[blurry]")
    message = capsys.readouterr().err.splitlines()[-1]
    assert stopped.value.code == 2
    captions = r"prompts \w+, not \w+"
    assert re.fullmatch(
        rf"error: .* was begun with negatives \[''\], not \['blurry'\]; {captions}; seed 0, not 1: pass .*", message
    )
    assert {file: file.stat().st_mtime_ns for file in folder_of(adaptors).iterdir()} == files


def test_evaluate_and_a_sweep_find_it_at_its_point(
    adaptors: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """And it is closer to the teacher than the identity is."""
    points = "points=[{adaptor: identity}, {adaptor: linear}]"
    run(monkeypatch, "evaluate", points, *QUICK_ROWS, f"adaptors={adaptors}", f"output={tmp_path}")
    rows = {row["adaptor"]: row["metrics"] for row in read_rows(tmp_path / "rows.jsonl")}
    assert rows["linear"]["psnr"] > rows["identity"]["psnr"]
    assert "Measured with 2 images" in (folder_of(adaptors) / "README.md").read_text()
    assert "without a training log" not in (tmp_path / "report.html").read_text()
    by_folder = ["adaptor=folder", f"adaptor.path={folder_of(adaptors)}"]
    run(monkeypatch, "evaluate", *by_folder, *QUICK_ROWS, f"output={tmp_path / 'folder'}")
    assert read_rows(tmp_path / "folder" / "rows.jsonl")[0]["metrics"] == rows["linear"]
    assert "| linear " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:adaptor used away from the operating point")
def test_generate_and_edit_use_it(adaptors: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    linear = ["adaptor=folder", f"adaptor.path={folder_of(adaptors)}"]
    run(monkeypatch, "generate", "prompt=a red circle", *linear, "steps=4", f"output={tmp_path / 'image.png'}")
    assert json.loads((tmp_path / "image.json").read_text())[0]["seconds_with"] > 0
    texts = ["source=a circle", "target=a blue circle", "teacher=miniature", "points=[{}]", "edit_metrics=none"]
    steps = ["inversion.steps=4", "generation.steps=4"]
    run(monkeypatch, "edit", "image=docs/grid.png", *texts, *steps, *linear, f"output={tmp_path / 'edit'}")
    assert (tmp_path / "edit" / "linear-clock2.png").is_file()


MISTAKES = {
    "no adaptor steps": ("calibrate", ["schedule=full"], "schedule=full has no adaptor step in 8 steps"),
    "one step": ("calibrate", ["steps=1"], "no adaptor step in 1 steps"),
    "no full step": ("calibrate", ["schedule=always"], "schedule=always has no full step"),
    "a schedule for more steps": ("calibrate", ["schedule=[2,4]", "steps=3"], "longer than the 3 steps"),
    "a teacher of one full step": ("calibrate", ["teacher=instaflow", "prompts=miniature"], "schedule=full has no"),
    "too few captions": ("calibrate", ["count=2", "prompts.count=100"], "2 captions are too few"),
    "fewer captions than asked for": ("calibrate", ["prompts.count=5"], "pass count=5"),
    "no file": ("calibrate", ["prompts=captions", "prompts.path=nowhere.txt"], "no caption file"),
    "which captions": ("calibrate", ["teacher=sd15"], "pass prompts.path=<a file of captions>"),
    "rank": ("calibrate", ["adaptor.rank=48", "prompts.count=200"], "rank 48 is not below the 48 channels"),
    "an adaptor to train": ("calibrate", ["adaptor=resnet"], "use adaptor=linear"),
    "an adaptor to calibrate": ("train", ["adaptor=linear", "steps=6"], "python scripts/calibrate.py adaptor=linear"),
    "not calibrated yet": (
        "evaluate",
        ["adaptor=linear", "steps=7", "guidance=2"],
        "calibrated at this point: run `python scripts/calibrate.py adaptor=linear teacher=miniature cut=stage1 "
        "schedule=clock2 solver=dpm++ steps=7 guidance=2",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_status_2(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script, arguments, expected = MISTAKES[name]
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, script, *arguments, f"output={tmp_path}")
    answers_in_one_sentence(stopped.value.code, capsys, expected, tmp_path)


def test_a_file_without_captions_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "captions.txt").write_text("\n")
    output = tmp_path / "output"
    output.mkdir()
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "calibrate", "prompts=captions", f"prompts.path={tmp_path}/captions.txt", f"output={output}")
    answers_in_one_sentence(stopped.value.code, capsys, "captions.txt holds no captions", output)


def test_calibrate_returns_what_it_made(adaptors: Path) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        words = [*FEW, f"output={adaptors}"]
        cfg = compose("calibrate", [*teacher_overrides("calibrate", words), *words], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        calibrated = calibrate(cfg)
    assert calibrated.folder == folder_of(adaptors)
    assert [fit["step"] for fit in calibrated.figures["steps"]] == [2, 4]


def test_a_menu_from_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Its table, its page with the images, and an adaptor of each entry; the entry within the quality is marked."""
    words = ["menu.cuts=[stage1]", "menu.schedules=[clock2,clock3]", "menu.measured=2", "menu.runs=1"]
    few = ["steps=5", "count=12", "prompts.count=100", "device=cpu", "menu.quality=fast", f"menu.output={tmp_path}"]
    run(monkeypatch, "calibrate", "menu", *words, *few)
    out = capsys.readouterr().out
    assert re.search(r"^\d\*\s+stage1\s+clock[23]", out, re.MULTILINE) and "PSNR in dB" in out
    folder = tmp_path / "miniature"
    assert (folder / "menu.html").read_text(encoding="utf-8").count("<img ") == 2 * 3
    adaptor, point = load_adaptor(folder / "stage1-clock3")
    assert isinstance(adaptor, Linear) and adaptor.steps == (2, 3, 5) and point.schedule == "clock3"
