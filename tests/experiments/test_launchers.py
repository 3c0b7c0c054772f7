"""Jobs of `-m` by Hydra's other launchers: joblib's processes, and submitit's, which Slurm's jobs are made with."""

import sys
from pathlib import Path

import pytest
from helpers import processes

from clockwork.evaluation.rows import read_rows

FEW = ["adaptor=identity", "prompts.count=2", "metrics=none", "metrics.latency=false", "device=cpu"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_jobs_beside_each_other_measure_one_row_each(launcher: str, tmp_path: Path) -> None:
    """In one folder, to whose rows one process at a time appends."""
    where = [f"output={tmp_path / 'rows'}", f"hydra.sweep.dir={tmp_path / 'jobs'}", f"hydra/launcher={launcher}"]
    command = [sys.executable, "scripts/evaluate.py", *FEW, "steps=2,3", *where, "-m"]
    done = processes.run(command)
    assert done.returncode == 0, done.stderr
    assert sorted(row["steps"] for row in read_rows(tmp_path / "rows" / "rows.jsonl")) == [2, 3]
