"""The commands: every config composes, mistakes are answered in one sentence, the rules of the house hold."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import QUICK_TRAINING, ROOT, answers_in_one_sentence, config, run
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from clockwork.evaluation.rows import image_folder, read_rows
from clockwork.experiments import cli
from clockwork.experiments.cli import COMMANDS, VERBS, main
from clockwork.experiments.configs import compose_config, teacher_overrides
from clockwork.experiments.evaluate import evaluate
from clockwork.experiments.train import train
from clockwork.miniature.prompts import scene_prompts

PLAIN = ["prompts=miniature", "metrics=none"]
MISTAKES = {
    "unknown config": ("train", ["adaptor=transformer"], "transformer"),
    "no such teacher folder": ("train", ["teacher.path=/nowhere/at/all"], "/nowhere/at/all"),
    "not a pipeline folder": ("train", ["teacher.path=configs"], "model_index.json"),
    "unknown cut": ("train", ["cut=stage9"], "unknown cut"),
    "cut that does not fit": ("train", ["cut='0,3'"], "skip"),
    "identity cannot be trained": ("train", ["adaptor=identity"], "nothing to train"),
    "a forecaster cannot be trained": ("train", ["adaptor=taylor2"], "adaptor=taylor2 has nothing to train: use"),
    "no GPU": ("train", ["device=cuda:99"], f"torch finds {torch.cuda.device_count()} CUDA GPUs"),
    "weights by figures that there are none of": ("train", ["keep=best", "val_prompts=0"], "set val_prompts"),
    "no caption file": ("train", ["prompts=captions", "prompts.path=missing.txt"], "missing.txt"),
    "untrained adaptor": ("evaluate", ["adaptor=unet", "steps=7"], "scripts/train.py adaptor=unet"),
    "cut without low-res path": ("drift", ["cuts=[stage9]"], "unknown cut"),
    "surgery without anything to take out": ("train", ["objective=recover"], "no transformer blocks"),
    "two passes cannot be halved": ("train", ["objective=progressive"], "run objective=guidance first"),
    "steps that do not halve": ("train", ["objective=progressive", "end=5", "teacher.guidance=1"], "2, 4, 8"),
    "no image folder": ("train", ["data=noised", "images=folder", "images.path=nowhere"], "no image folder at nowhere"),
    "a teacher not made yet": ("evaluate", ["teacher=efficient", *PLAIN], "objective=recover teacher=sd15"),
    "no picture to edit": ("edit", ["source=a", "target=b"], "no image: pass image="),
    "no prompt to edit by": ("edit", ["image=README.md", "source=a"], "no target"),
    "no such picture": ("edit", ["image=nowhere.png", "source=a", "target=b"], "no image at nowhere.png"),
    "a picture that can't be read": ("edit", ["image=README.md", "source=a", "target=b"], "not an image that can"),
    "a picture refused": (
        "edit",
        ["image=docs/grid.png", "source=a", "target=b", "resize=false"],
        "use resize=true",
    ),
    "generation past inversion": (
        "edit",
        ["+benchmark=scenes", "generation.steps=30", "points=[{}]"],
        "30 generation steps",
    ),
    "share of the steps": ("edit", ["+benchmark=scenes", "tau_f=2", "points=[{}]"], "from 0 to 1"),
    "no benchmark": ("edit", ["+benchmark=imagenetr_ti2i", "benchmark.images=nowhere", "points=[{}]"], "nowhere"),
    "a value without default": (
        "train",
        ["data=noised", "images=folder"],
        "pass images.path=<a folder of captioned images>",
    ),
    "no solver of the runner": (
        "export",
        ["solver=pndm"],
        "solver=pndm cannot be exported: use solver=dpm++ or solver",
    ),
    "nothing to export": ("export", ["adaptor=none"], "adaptor=none has no adaptor step to export"),
    "folder without adaptor": ("evaluate", ["adaptor=folder", "adaptor.path=configs"], "config.json"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence_and_exit_status_2(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script, arguments, expected = MISTAKES[name]
    few = ["prompts.count=100"] if script == "train" else []
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, script, *few, *arguments, f"output={tmp_path}")
    answers_in_one_sentence(stopped.value.code, capsys, expected, tmp_path)


def test_an_adaptor_of_another_teacher_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(monkeypatch, "train", *QUICK_TRAINING, "steps=2", f"output={tmp_path}")
    folder = next(tmp_path.rglob("adaptor"))
    points = ["prompts.count=2", "metrics=none", "metrics.latency=false", f"output={tmp_path / 'eval'}", "steps=2"]
    run(monkeypatch, "evaluate", "adaptor=folder", f"adaptor.path={folder}", *points)
    assert "| resnet " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "evaluate", "adaptor=folder", f"adaptor.path={folder}", "teacher=miniature_sd", *points)
    assert stopped.value.code == 2
    assert "trained for teacher miniature" in capsys.readouterr().err
    with pytest.raises(SystemExit):  # the same folder with another config
        run(monkeypatch, "train", *QUICK_TRAINING, "steps=2", "learning_rate=1", f"output={tmp_path}")
    assert "was begun with learning_rate 0.001, not 1: pass" in capsys.readouterr().err


def test_pictures_from_elsewhere_are_scored_as_ours(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """An evaluation's pictures, handed in as a folder of captioned ones, score what the row says."""
    small = ["metrics.reference=200", f"metrics.cache={tmp_path}"]
    run(monkeypatch, "evaluate", "prompts.count=70", "steps=1", *small, "metrics.latency=false", f"output={tmp_path}")
    (row,) = read_rows(tmp_path / "rows.jsonl")
    folder = image_folder(tmp_path, row)
    for prompt in scene_prompts("test", 70):
        (folder / f"{prompt.id}.txt").write_text(prompt.text)
    run(monkeypatch, "score", f"images.path={folder}", *small, "metrics.latency=false")
    said = dict(re.findall(r"^(\w+_miniature) (\S+)$", capsys.readouterr().out, re.MULTILINE))
    assert {name: float(value) for name, value in said.items()} == pytest.approx(
        {name: row["metrics"][name] for name in ("fid_miniature", "clip_score_miniature")}, abs=1e-4
    )


@pytest.mark.parametrize("group", ["benchmark", "edit_metrics"])
def test_every_editing_config_composes(group: str) -> None:
    for file in sorted((ROOT / "configs" / group).glob("*.yaml")):
        with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
            composed = compose_config("edit", [f"{'+' if group == 'benchmark' else ''}{group}={file.stem}"])
            assert composed.teacher.path == "miniature_sd" and composed.points[0].adaptor == "none"
            assert group != "benchmark" or composed.name == file.stem


def test_a_picture_and_a_set_are_edited(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One picture side by side; a set at several inversion steps by `-m`, a second time without work."""
    quick = ["edit_metrics=none", "inversion.steps=2", "generation.steps=2", f"output={tmp_path}"]
    run(monkeypatch, "edit", "image=docs/grid.png", "source=a circle", "target=a blue circle", *quick)
    images = {f.name for f in tmp_path.glob("*.png")}
    assert images == {"edit.png", "source.png", "no-clock.png", "identity-clock2.png"}
    sweep = ["+benchmark=scenes", "benchmark.count=1", "points=[{schedule: clock2}]", *quick]
    for _ in range(2):
        run(monkeypatch, "edit", *sweep, "inversion.steps=2,4", "-m")
        assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 2
    assert "| identity | clock2   | 4 " in capsys.readouterr().out
    assert (tmp_path / "figure6.png").is_file() and (tmp_path / "images-scenes-4.png").is_file()


def test_scripts_are_thin_and_import_nothing_heavy() -> None:
    """Heavy imports stay out of start-up."""
    scripts = [file for file in (ROOT / "scripts").glob("*.py") if file.stem != "compat"]
    assert {file.stem for file in scripts} == set(COMMANDS) and set(VERBS) <= set(COMMANDS)
    assert all(len(file.read_text().splitlines()) <= 40 for file in scripts)
    imports = "; ".join(f"import {file.stem}" for file in scripts)
    code = (
        f"import sys; sys.path.insert(0, 'scripts'); {imports}; sys.exit(bool({{'torch', 'hydra'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_console_script_lists_its_verbs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["clockwork", "--help"])
    main()
    usage = capsys.readouterr().out
    assert all(f"\n  {verb} " in usage for verb in VERBS)
    monkeypatch.setattr(sys, "argv", ["clockwork", "trian"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and capsys.readouterr().err == (
        "error: trian is not a verb: use train, calibrate, evaluate, generate, edit, export, report\n"
    )
    monkeypatch.setattr(cli, "other_distributions", list)  # whatever is installed here
    monkeypatch.setattr(sys, "argv", ["clockwork", "train", "steps=0"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2 and capsys.readouterr().err.startswith("error: steps=0 is not allowed")


def test_train_and_evaluate_return_what_they_made(tmp_path: Path) -> None:
    trained = train(config(tmp_path, "steps=2", "adaptor.width=8"))
    assert (trained.folder / "config.json").is_file() and trained.folder.is_relative_to(tmp_path)
    assert trained.metrics["val/guided_relative_l2"] >= 0
    assert train(config(tmp_path, "steps=2", "adaptor.width=8")).metrics == {}
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        points = "points=[{}, {adaptor: identity}, {adaptor: taylor1}]"
        few = ["steps=2", "metrics=none", "metrics.latency=false", "prompts.count=2"]
        words = [points, *few, f"output={tmp_path}/eval"]
        cfg = compose("evaluate", [*teacher_overrides("evaluate", words), *words], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        rows = evaluate(cfg)
    assert [row["adaptor"] for row in rows] == ["none", "identity", "taylor1"] and rows[1]["metrics"]["psnr"] > 0
    assert rows[2]["metrics"] == rows[1]["metrics"], "with one full step a forecast is the identity"


# From the lowest room to the highest, the miniature: no other room imports it.
ROOMS = [
    "deprecated",
    "errors",
    "schedule",
    "operating_point",
    "io",
    "unet",
    "adaptors",
    "teachers",
    "rivals",
    "sampling",
    "flops",
    "data",
    "metrics",
    "calibration",
    "training",
    "pipeline",
    "evaluation",
    "editing",
    "analysis",
    "exporting",
    "reports",
    "experiments",
    "miniature",
]


def test_rooms_import_from_below_only() -> None:
    """In the order of `ROOMS`, and no heavy library where it does not belong."""
    for file in (ROOT / "clockwork").rglob("*.py"):
        here = file.relative_to(ROOT / "clockwork").with_suffix("").parts[0]
        if here in ("__init__", "deprecated"):  # which name every room
            continue
        modules: list[str] = []
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):  # `from clockwork import schedule` names a module below
                inner = node.module == "clockwork"
                modules += [f"clockwork.{alias.name}" for alias in node.names] if inner else [node.module or ""]
        for module in modules:
            parts = module.split(".")
            if parts[0] == "clockwork" and len(parts) > 1 and parts[1] != here:
                assert ROOMS.index(parts[1]) < ROOMS.index(here), f"{file}: {module}"
            assert parts[0] != "hydra" or here == "experiments", file
            assert parts[0] != "pytorch_lightning" or here in ("training", "reports", "experiments", "miniature"), file
            assert parts[0] != "wandb" or here == "reports", file
