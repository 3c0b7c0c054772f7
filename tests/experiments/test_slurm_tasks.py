"""Commands as tasks of Slurm, known by the variables that `srun` sets: the results are those of other launchers."""

from pathlib import Path

import pytest
from helpers.commands import SHORT_TRAINING
from helpers.processes import Process, start, start_ranks, start_tasks
from safetensors.torch import load_file

from clockwork.evaluation.rows import read_rows

pytestmark = pytest.mark.slow  # processes that load everything
TRAIN = ["scripts/train.py", *SHORT_TRAINING, "epochs=1", "samples_every=0", "device=cpu"]
CALIBRATE = ["scripts/calibrate.py", "prompts.count=100", "count=4", "steps=2", "device=cpu"]
EVALUATE = ["scripts/evaluate.py", "metrics=miniature", "metrics.reference=120", "metrics.latency=false"]
EVALUATE += ["adaptor=identity", "steps=2", "prompts.count=3", "device=cpu"]
RESERVED = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job.sh", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}
# What one process finds in a job that reserves two tasks, of which nobody has started another.
ALONE = {
    "a script of sbatch": {**RESERVED, "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
    "a script without --ntasks-per-node": {**RESERVED, "SLURM_NTASKS_PER_NODE": "", "SLURM_NNODES": "2"},
    "a shell of salloc": {**RESERVED, "SLURM_JOB_NAME": "interactive", "SLURM_STEP_NUM_TASKS": "1"},
    "a shell of srun": {**RESERVED, "SLURM_JOB_NAME": "bash", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PTY_PORT": "9"},
}


def check(*processes: Process) -> None:
    for process in processes:
        status, _, errors = process.wait(timeout=120)
        assert status == 0, errors


def weights(folder: Path) -> dict[str, list[float]]:
    (file,) = folder.rglob("adaptor.safetensors")
    return {name: weight.flatten().tolist() for name, weight in load_file(file).items()}


def test_tasks_train_what_processes_of_torchrun_do(tmp_path: Path) -> None:
    check(*start_tasks(2, *TRAIN, f"output={tmp_path}/slurm"))
    check(*start_ranks(2, *TRAIN, f"output={tmp_path}/torchrun"))
    assert weights(tmp_path / "slurm") == weights(tmp_path / "torchrun")
    assert len(list(tmp_path.glob("slurm/*/*/checkpoints/last.ckpt"))) == 1


def test_tasks_calibrate_and_measure_what_one_process_does(tmp_path: Path) -> None:
    for name in ("two", "one"):
        for command in (CALIBRATE, [*EVALUATE, f"metrics.cache={tmp_path}/{name}/cache"]):
            words = [*command, f"output={tmp_path}/{name}"]
            check(*start_tasks(2, *words) if name == "two" else [start(*words)])
    two, one = (weights(tmp_path / name) for name in ("two", "one"))
    assert all(two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5) for name in one)
    rows = [read_rows(tmp_path / name / "rows.jsonl") for name in ("two", "one")]
    assert [len(each) for each in rows] == [1, 1] and rows[0][0]["digest"] == rows[1][0]["digest"]
    assert rows[0][0]["metrics"] == pytest.approx(rows[1][0]["metrics"], rel=1e-6)


@pytest.mark.parametrize("name", ALONE)
def test_one_process_waits_for_no_tasks_that_are_only_reserved(name: str, tmp_path: Path) -> None:
    check(start(*TRAIN, "prompts_per_epoch=2", f"output={tmp_path}", environment=ALONE[name]))
    assert weights(tmp_path)


def test_unequal_nodes_are_refused(tmp_path: Path) -> None:
    unequal = {"SLURM_STEP_TASKS_PER_NODE": "2,1"}
    for task in start_tasks(2, *TRAIN, f"output={tmp_path}", environment=unequal):
        status, _, errors = task.wait(timeout=60)
        assert status == 2 and errors.count("error: Slurm runs 2, 1 tasks on the nodes: pass --ntasks-per-node") == 1
    assert not list(tmp_path.iterdir())
