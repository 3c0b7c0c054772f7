"""What README, docs and notebooks name exists: scripts, make targets, overrides; and the code on extending runs."""

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from helpers.commands import QUICK_TRAINING, ROOT, run
from hydra import initialize_config_dir
from hydra.utils import instantiate

import clockwork
from clockwork.adaptors import KINDS
from clockwork.evaluation.rows import read_rows
from clockwork.experiments import config_files
from clockwork.experiments.configs import compose_config
from clockwork.experiments.quoting import quoted

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = [
    (page.name, command.split("  #")[0].strip())
    for page in PAGES
    for command in re.findall(
        r"(?:^|`)((?:python scripts/|make )[^`\n]*)", re.sub(r"\\\n *", "", page.read_text()), re.MULTILINE
    )
]
OWN = {"blend", "contrast", "mine"}  # configs that docs/extending.md adds


@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_every_command_in_the_docs_exists(page: str, command: str) -> None:
    """A make target that is there; a script that is there, with overrides that compose."""
    first, *words = shlex.split(re.sub(r"<[^>]*>|…", "something", command))
    if first == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        named = [word for word in words if "=" not in word]
        assert named and set(named) <= set(targets), page
        return
    script, *overrides = words
    assert (ROOT / script).is_file(), page
    if any(override.partition("=")[2] in OWN for override in overrides):
        return
    if "-m" in overrides:  # a value of each of Hydra's lists is enough
        overrides = [re.sub(r"=(\w+),.*", r"=\1", override) for override in overrides]
    overrides = [quoted(o) for o in overrides if "=" in o or o.startswith("~")]
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        assert compose_config(Path(script).stem, overrides) is not None


def test_docs_name_commands() -> None:
    """The pattern finds them."""
    assert ("results.md", "make analysis") in COMMANDS and ("results.md", "python scripts/drift.py") in COMMANDS


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with the files of docs/extending.md, beside the project's own configs."""
    for file in (ROOT / "configs").rglob("*.yaml"):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    for name, text in re.findall(r"```\w+ file=(\S+)\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL):
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(config_files, "FOLDER", tmp_path / "configs")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_new_adaptor_and_a_new_metric_are_one_file_and_one_yaml_each(
    extended: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The adaptor is trained, saved, found by its name and measured, by the metric, too; without its file a folder of
    its kind is refused."""
    adaptors, output = extended / "adaptors", extended / "outputs" / "eval"
    run(monkeypatch, "train", "adaptor=blend", *QUICK_TRAINING, "steps=2", f"output={adaptors}")
    small = ["steps=2", "prompts.count=2", "metrics=none", "metrics.latency=false", f"adaptors={adaptors}"]
    run(monkeypatch, "evaluate", "adaptor=blend", *small, f"output={output}")
    assert "| blend " in capsys.readouterr().out
    images = {file: file.stat().st_mtime_ns for file in output.rglob("*.png")}
    run(monkeypatch, "evaluate", "adaptor=blend", *small[:2], "metrics=contrast", small[-1], f"output={output}")
    assert "| contrast |" in capsys.readouterr().out
    row = read_rows(output / "rows.jsonl")[-1]
    assert row["metrics"].keys() == {"contrast"} and 5 < row["metrics"]["contrast"] < 120
    assert {file: file.stat().st_mtime_ns for file in output.rglob("*.png") if file in images} == images
    (folder,) = adaptors.rglob("adaptor")
    monkeypatch.delitem(KINDS, "blend")
    with pytest.raises(ValueError, match="kind 'blend'"):
        clockwork.load_adaptor(folder)
    for module in ("blend", "contrast"):
        sys.modules.pop(module, None)


def test_a_new_teacher_is_one_yaml(extended: Path) -> None:
    made = clockwork.load_teacher("miniature")
    made.pipe.save_pretrained(extended / "mine")
    with initialize_config_dir(str(extended / "configs"), version_base="1.3"):
        config = compose_config("evaluate", ["teacher=mine", f"teacher.path={extended / 'mine'}"])
    teacher = instantiate(config.teacher)
    assert (teacher.name, teacher.guidance, teacher.hash) == ("mine", 5.0, made.hash)
    assert [metric.name for metric in config.metrics.list] == ["psnr", "ssim"] and config.prompts.path.endswith(
        "captions_val2017.json"
    )
    assert torch.equal(teacher.noise([3]), made.noise([3])) and config.guidance == 5.0
