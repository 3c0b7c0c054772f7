"""Jobs and tasks of Slurm, as its environment variables describe them: tasks of `srun` work together as processes of
torchrun do, and a job whose time is nearly over is queued again."""

import os
import re
import subprocess
import sys

from clockwork.errors import UserError


def join_step() -> None:
    """Describes this process as torchrun does, by `RANK` and others, if `srun` has started several tasks.

    The tasks are those of the step: a script of `sbatch` and a shell of `salloc` run once, whatever their job reserves.
    Does nothing below torchrun.
    """
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) < 2 or "SLURM_PTY_PORT" in os.environ or "RANK" in os.environ:
        return
    node, rank, count = (int(os.environ[f"SLURM_{name}"]) for name in ("NODEID", "PROCID", "STEP_NUM_TASKS"))
    local_rank, local_count = int(os.environ["SLURM_LOCALID"]), tasks_per_node()[node]
    if os.environ.get("CUDA_VISIBLE_DEVICES", ",").count(",") == 0:  # each task sees the GPU of its own alone
        node, local_rank, local_count = rank, 0, 1
    task = {"RANK": rank, "LOCAL_RANK": local_rank, "GROUP_RANK": node}
    os.environ |= {key: str(value) for key, value in task.items()}
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(local_count)}
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", "127.0.0.1"))
    step = int(os.environ["SLURM_JOB_ID"]) * 7 + int(os.environ.get("SLURM_STEP_ID", 0))
    os.environ.setdefault("MASTER_ADDR", first_node(nodes))
    os.environ.setdefault("MASTER_PORT", str(15_000 + step % 15_000))  # another one for each step of a node


def tasks_per_node() -> list[int]:
    """Returns how many tasks of the step run on each of its nodes; nothing outside a step."""
    text = os.environ.get("SLURM_STEP_TASKS_PER_NODE", "")
    parts = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)  # 2(x3),1
    return [int(tasks) for tasks, nodes in parts for _ in range(int(nodes or 1))]


def check_equal_nodes() -> None:
    """Checks that every node runs as many tasks, without which Lightning cannot train.

    Raises:
        UserError: It does not.
    """
    if len(set(tasks := tasks_per_node())) > 1:
        listed = ", ".join(map(str, tasks))
        raise UserError(f"Slurm runs {listed} tasks on the nodes: pass --ntasks-per-node, so that each runs as many")


def first_node(nodes: str) -> str:
    """Returns the first host of a list of Slurm.

    Args:
        nodes: The list, such as `gpu[01-03,07]-a,login`.
    """
    first = re.match(r"(?:[^,\[\s]|\[[^\]]*\])+", nodes)
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first[0]) if first else nodes


def job() -> str | None:
    """Returns the id of the job, as `scontrol` takes it; None outside a job."""
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None and "SLURM_ARRAY_TASK_ID" in os.environ:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def requeue() -> bool:
    """Queues the job again; prints why that was not possible.

    Returns:
        Whether the job has been queued again, so that this process should stop.
    """
    try:
        done = subprocess.run(["scontrol", "requeue", str(job())], capture_output=True, text=True, check=False)
        failure = done.returncode and f"scontrol failed with status {done.returncode}: {done.stderr.strip()}"
    except OSError as error:
        failure = str(error)
    if failure:
        print(f"job {job()} was not queued again, so this run goes on ({failure})", file=sys.stderr)
    return not failure
