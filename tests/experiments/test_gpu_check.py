"""`make gpu-check` on the CPU with the miniature: the stages that a GPU will run, and what a failure looks like."""

from pathlib import Path

import pytest
from helpers import processes
from helpers.commands import ROOT, run
from hydra import initialize_config_dir

from clockwork.experiments.configs import compose_config
from clockwork.experiments.gpu_check import Stage, StageResult, run_stage, stages, write_report

STAGES = ("train", "resume", "calibrate", "evaluate", "generate", "edit", "bench", "compiled")


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages need no time for imports."""
    monkeypatch.setattr("clockwork.experiments.gpu_check.subprocess.run", processes.run)


@pytest.mark.parametrize("small", [True, False])
def test_every_stages_command_is_allowed(small: bool, tmp_path: Path) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        planned = stages(compose_config("gpu_check", [f"small={small}"]), tmp_path)
        for stage in planned:
            compose_config(stage.verb, stage.overrides)
    assert len(planned) == len(STAGES) + (not small)  # random weights of real size come first


@pytest.mark.slow  # a process per stage
def test_every_stage_passes_on_the_miniature(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "gpu"
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "gpu_check", "small=true", "device=cpu", "precision=float32", f"output={output}")
    report = (output / "report.md").read_text()
    assert ended.value.code == 0, report
    assert all(f"| {name} | passed |" in report for name in STAGES)
    assert (output / "generated" / "image.png").is_file() and (output / "edit" / "edit.png").is_file()


def test_a_failing_stage_is_reported_with_its_reason(tmp_path: Path) -> None:
    result = run_stage(Stage("bench", "bench", ("rounds=none",)), tmp_path)
    write_report([result, StageResult("train", 1.0, 12.5, "", False)], tmp_path / "report.md", "a machine")
    report = (tmp_path / "report.md").read_text()
    assert not result.passed and "| bench | **failed** |" in report and "rounds" in report.split("## bench")[1]
    assert "| train | **failed** | 1.0 | 12.50 | 12.0 |" in report
