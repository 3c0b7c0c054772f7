"""`make gpu-check` on the CPU with the miniature: the stages that a GPU will run, and what a failure looks like."""

from pathlib import Path

import pytest
from helpers import processes
from helpers.commands import run

from clockwork.experiments.gpu_check import Stage, StageResult, run_stage, write_report


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages need no time for imports."""
    monkeypatch.setattr("clockwork.experiments.gpu_check.subprocess.run", processes.run)


def test_every_stage_passes_on_the_miniature(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    output = tmp_path / "gpu"
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "gpu_check", "small=true", "device=cpu", "precision=float32", f"output={output}")
    report = (output / "report.md").read_text()
    assert ended.value.code == 0, report
    stages = ("train", "resume", "calibrate", "evaluate", "generate", "edit", "bench")
    assert all(f"| {name} | passed |" in report for name in stages)
    assert (output / "generated" / "image.png").is_file() and (output / "edit" / "edit.png").is_file()


def test_a_failing_stage_is_reported_with_its_reason(tmp_path: Path) -> None:
    result = run_stage(Stage("bench", "bench", ("rounds=none",)), tmp_path)
    write_report([result, StageResult("train", 1.0, 12.5, "", False)], tmp_path / "report.md", "a machine")
    report = (tmp_path / "report.md").read_text()
    assert not result.passed and "| bench | **failed** |" in report and "rounds" in report.split("## bench")[1]
    assert "| train | **failed** | 1.0 | 12.50 | 12.0 |" in report
