"""The folder of a run: what may go on in it and what may not, and that a finished training is left alone."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import QUICK_TRAINING, config, run
from omegaconf import DictConfig

from clockwork.adaptors import adaptor_hash, add_row, load_adaptor, read_config
from clockwork.errors import UserError
from clockwork.experiments.run_dir import adaptor_folder, claim, mark_trained
from clockwork.io.lock import release_folders
from clockwork.miniature.prompts import scene_prompts
from clockwork.teachers import Teacher, load_teacher
from clockwork.training.objectives.adaptor import AdaptorDistillation

PROMPTS = scene_prompts("train", 4)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, device="cpu")


def begin(folder: Path, teacher: Teacher, **about: Any) -> DictConfig:
    cfg = config(folder, "epochs=2")
    claim(folder, cfg, teacher, PROMPTS, **about)
    return cfg


@pytest.fixture(scope="module")
def begun(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a training of two epochs; tests that write into it copy it."""
    folder = tmp_path_factory.mktemp("begun")
    begin(folder, teacher)
    return folder


SAME = {
    "another logger": ["logger=csv"],
    "another device": ["device=auto"],
    "sample images more often": ["samples_every=1"],
    "another spelling of the folder": ["output=./elsewhere/../here"],
    "another folder of teachers": ["teachers=elsewhere"],
    "no progress bar": ["trainer.enable_progress_bar=true"],
    "the teacher's folder, spelled out": ["teacher.path=clockwork/miniature/weights/miniature"],
    "the precision by name": ["precision=float32"],
    "other images, which are not used": ["images.count=7"],
    "more epochs": ["epochs=3"],
}


def test_a_second_run_is_refused_with_the_first_one_named(teacher: Teacher, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    hold = "import sys; from clockwork.io.lock import *; lock_folder(Path(sys.argv[1])); print(1, flush=True); input()"
    command = [sys.executable, "-c", hold, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        marker = (tmp_path / "config.json").read_bytes()
        with pytest.raises(UserError, match=rf"process {os.getpid()} on .* is writing to"):  # which has begun it
            begin(tmp_path, teacher)
        assert (tmp_path / "config.json").read_bytes() == marker
        other.communicate(b"\n")
    with release_folders():
        begin(tmp_path, teacher)


@pytest.mark.parametrize("name", SAME)
def test_what_does_not_change_the_result_goes_on(name: str, teacher: Teacher, begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    claim(tmp_path, config(tmp_path, "epochs=2", *SAME[name]), teacher, PROMPTS)


OTHER = {
    "learning rate": (["learning_rate=1"], "learning_rate 0.001, not 1:"),
    "batch size": (["batch_size=8"], "batch_size 4, not 8:"),
    "generation batch size": (["generation_batch_size=8"], "generation_batch_size 64, not 8:"),
    "seed": (["seed=1"], "seed 0, not 1:"),
    "fewer epochs": (["epochs=1"], "epochs 2, not 1:"),
    "adaptor's width": (["adaptor.width=8"], "adaptor.width None, not 8:"),
    "adaptor's inputs": (["adaptor.inputs=[r_in,t_emb]"], r"not \['r_in', 't_emb'\]"),
    "schedule": (["schedule=clock4"], "schedule clock2, not clock4:"),
    "guidance": (["guidance=2"], "guidance 3.0, not 2:"),
    "optimiser": (["optimizer=adamw"], "optimizer._target_ Adam, not AdamW"),
    "learning-rate schedule": (["lr_scheduler=constant"], "lr_scheduler._target_ CosineAnnealingLR, not None"),
    "data": (["data=noised"], "data_name trajectories, not noised"),
    "objective": (["objective=guidance", "learning_rate=0.001"], "objective_name adaptor, not guidance"),
    "devices": (["trainer.devices=2"], "trainer.devices 1, not 2"),
    "clipping": (["trainer.gradient_clip_val=1"], "trainer.gradient_clip_val None, not 1"),
}


@pytest.mark.parametrize("name", OTHER)
def test_what_changes_the_result_is_refused_by_its_key_and_both_values(
    name: str, teacher: Teacher, begun: Path
) -> None:
    before = (begun / "config.json").read_text()
    overrides, said = OTHER[name]
    with pytest.raises(ValueError, match=rf"was begun with .*{said}.*output=<another folder>"):
        claim(begun, config(begun, "epochs=2", *overrides), teacher, PROMPTS)
    assert (begun / "config.json").read_text() == before


def test_prompts_and_teacher_are_compared_by_content(teacher: Teacher, tmp_path: Path) -> None:
    cfg = begin(tmp_path, teacher)
    with pytest.raises(ValueError, match=r"begun with prompts \w+, not"):
        claim(tmp_path, cfg, teacher, [*PROMPTS[:3], replace(PROMPTS[3], text="another")])
    half = load_teacher("miniature", guidance=3.0, device="cpu", precision="bfloat16")
    with pytest.raises(ValueError, match=r"begun with .*teacher\.precision float32, not bfloat16"):
        claim(tmp_path, cfg, half, PROMPTS)
    with pytest.raises(ValueError, match=r"teacher\.guidance 3\.0, not 7\.5; teacher\.unet \w+, not"):
        claim(tmp_path, cfg, load_teacher("miniature_sd", device="cpu"), PROMPTS)


def test_a_folder_of_an_earlier_version_goes_on(teacher: Teacher, tmp_path: Path) -> None:
    """Its marker is the whole config with the teacher's fingerprint."""
    cfg = begin(tmp_path / "now", teacher)
    former = json.loads((tmp_path / "now" / "config.json").read_text())["config"]
    (tmp_path / "config.json").write_text(
        json.dumps({**former, "trainer": {"accelerator": "auto"}, "passes_then": 6, "teacher_hash": teacher.hash})
    )
    assert claim(tmp_path, cfg, teacher, PROMPTS, tmp_path / "missing") == 0
    (tmp_path / "config.json").write_text(json.dumps({**former, "teacher_hash": teacher.hash}))
    assert claim(tmp_path, cfg, teacher, PROMPTS, tmp_path) == 2  # it saved its result at the end alone
    (tmp_path / "config.json").write_text(json.dumps({**former, "teacher_hash": "another"}))
    with pytest.raises(ValueError, match=r"teacher\.unet another, not"):
        claim(tmp_path, cfg, teacher, PROMPTS)


def test_a_training_is_finished_when_it_has_saved_its_result(teacher: Teacher, tmp_path: Path) -> None:
    result = tmp_path / "adaptor"
    cfg = begin(tmp_path, teacher, result=result)
    mark_trained(tmp_path, 2)
    assert claim(tmp_path, cfg, teacher, PROMPTS, result) == 0  # removed since
    result.mkdir()
    mark_trained(tmp_path, 2)
    more = config(tmp_path, "epochs=5")
    assert claim(tmp_path, more, teacher, PROMPTS, result) == 2  # and again, if it was stopped before the fifth:
    assert claim(tmp_path, more, teacher, PROMPTS, result) == 2


def test_only_the_main_process_writes(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    begin(tmp_path, teacher)
    assert not list(tmp_path.iterdir())


def test_points_have_folders_of_their_own(tmp_path: Path) -> None:
    variants = [[], ["guidance=2"], ["teacher.resolution=64"], ["steps=6"], ["schedule=clock4"], ["solver=ddim"]]
    folders = [adaptor_folder(config(tmp_path, *words), "resnet", str(tmp_path)) for words in variants]
    assert len(set(folders)) == len(variants)
    assert folders[0] == tmp_path / "miniature" / "resnet-stage1-clock2-dpm++-8-g3"
    assert folders[2].name == "resnet-stage1-clock2-dpm++-8-g3-64px"


def test_a_finished_command_leaves_the_adaptor_alone_and_more_epochs_extend_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    train = partial(run, monkeypatch, "train", *QUICK_TRAINING, "steps=2", f"output={tmp_path}")
    train("epochs=1")
    (folder,) = tmp_path.rglob("adaptor")
    point = read_config(folder)["operating_point"]
    add_row(folder, {**point, "digest": "a", "images": 3, "seed": 0, "device": "cpu", "versions": "", "prompts": ""})
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}
    first, config_before = adaptor_hash(load_adaptor(folder)[0]), read_config(folder)
    assert config_before["training"]["loss"] > 0 and config_before["row"]["digest"] == "a"
    capsys.readouterr()
    train("epochs=1", "logger=csv")
    assert f"already trained for 1 epochs: {folder}" in capsys.readouterr().out
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()} == before
    train("epochs=2")
    after = read_config(folder)
    assert adaptor_hash(load_adaptor(folder)[0]) != first
    assert after["training"] != config_before["training"] and "row" not in after  # it was of the weights before
    with pytest.raises(SystemExit):
        train("epochs=1")
    assert "epochs 2, not 1" in capsys.readouterr().err


def test_an_adaptor_saved_again_keeps_its_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Killed between saving and the mark of it: the next run saves the same weights."""
    train = partial(run, monkeypatch, "train", *QUICK_TRAINING, "steps=2", "epochs=1", f"output={tmp_path}")
    train()
    (folder,) = tmp_path.rglob("adaptor")
    row = {
        **read_config(folder)["operating_point"],
        "digest": "a",
        "images": 3,
        "seed": 0,
        "device": "",
        "versions": "",
    }
    add_row(folder, {**row, "prompts": "", "versions": ""})
    before = read_config(folder)
    mark_trained(folder.parent, 0)
    train()
    assert read_config(folder) == before
    assert "already" not in capsys.readouterr().out


def test_the_learning_rate_of_an_extended_training_is_that_of_a_longer_one() -> None:
    """Two epochs of two along a cosine end at zero; two of four are half-way down."""

    def module(epochs: int) -> AdaptorDistillation:
        cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs)
        adaptor: Any = torch.nn.Linear(1, 1)
        return AdaptorDistillation(adaptor, optimizer=partial(torch.optim.Adam, lr=0.1), lr_scheduler=cosine)

    (optimizer,), (scheduler,) = module(2).configure_optimizers()
    for _ in range(2):
        optimizer.step()
        scheduler.step()
    for epochs, rate in ((2, 0.0), (4, 0.05)):
        states = {"optimizer_states": [optimizer.state_dict()], "lr_schedulers": [scheduler.state_dict()]}
        module(epochs).on_load_checkpoint(states)
        assert states["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(rate, abs=1e-9)
        assert states["lr_schedulers"][0]["T_max"] == epochs and states["lr_schedulers"][0]["last_epoch"] == 2


@pytest.mark.parametrize("words", [5, 400])
def test_captions_that_are_cut_off_are_counted_once(
    words: int, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By an evaluation of a caption file; what is counted is what `encode_prompt` does cut."""
    captions = tmp_path / "captions.txt"
    captions.write_text(" ".join(["red"] * words) + "\na large red circle\n" + " ".join(["blue"] * words) + "\n")
    few = ["prompts=captions", f"prompts.path={captions}", "metrics=none", "metrics.latency=false", "steps=1"]
    run(monkeypatch, "evaluate", *few, f"output={tmp_path / 'eval'}")
    printed = capsys.readouterr().out
    limit = teacher.pipe.tokenizer.model_max_length
    long, longer = (" ".join(["red"] * number) for number in (words, words + 50))
    cut_off = torch.equal(teacher.encode([long]).prompt_embeds, teacher.encode([longer]).prompt_embeds)
    assert teacher.num_truncated([long, "a large red circle"]) == int(cut_off) == int(words > limit)
    assert printed.count(f"2 of 3 prompts have more than the {limit} tokens") == int(cut_off)
