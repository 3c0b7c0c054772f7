"""Runs the commands that a user runs, one process each, and writes times, peak memory and ratios into a report."""

import json
import runpy
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clockwork.io.atomic import atomic_write

SCRIPTS = Path(__file__).parents[2] / "scripts"
LIMITS_GIB = {"train": 12.0, "resume": 12.0, "evaluate": 8.0}  # of GPU memory, SD v1.5 in float16 at 512 × 512


@dataclass(frozen=True)
class Stage:
    """One command: a name for the report, the script's name, and its overrides."""

    name: str
    script: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class StageResult:
    """How a stage ended.

    Attributes:
        name: The stage's.
        seconds: Wall time of its process.
        peak_gib: Peak memory that torch allocated on the GPU, in GiB; None without a GPU.
        output: The end of what it printed; of a failed stage its traceback.
        passed: Whether its process ended with status 0 and within its limit of memory.
    """

    name: str
    seconds: float
    peak_gib: float | None
    output: str
    passed: bool


def run_stage(stage: Stage, folder: Path) -> StageResult:
    """Runs a stage in a process of its own; a failure is a result, not an exception.

    Args:
        stage: What to run.
        folder: Where its peak memory is written, as `<name>.json`.
    """
    peak_file = folder / f"{stage.name}.json"
    command = [sys.executable, "-m", "clockwork.experiments.gpu_check", str(peak_file), stage.script, *stage.overrides]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    peak = json.loads(peak_file.read_text())["peak_gib"] if peak_file.is_file() else None
    within = peak is None or peak <= LIMITS_GIB.get(stage.name, float("inf"))
    output = done.stdout[-2000:] if done.returncode == 0 else (done.stdout + done.stderr)[-4000:]
    return StageResult(stage.name, seconds, peak, output, done.returncode == 0 and within)


def write_report(results: Sequence[StageResult], file: Path, machine: str) -> None:
    """Writes a Markdown report: a table of all stages, then what each printed."""
    lines = [
        "# GPU check",
        "",
        machine,
        "",
        "| stage | result | seconds | peak GiB | limit GiB |",
        "|---|---|---|---|---|",
    ]
    for result in results:
        peak = "–" if result.peak_gib is None else f"{result.peak_gib:.2f}"
        limit = LIMITS_GIB.get(result.name, "–")
        state = "passed" if result.passed else "**failed**"
        lines.append(f"| {result.name} | {state} | {result.seconds:.1f} | {peak} | {limit} |")
    for result in results:
        lines += ["", f"## {result.name}", "", "```", result.output.strip(), "```"]
    with atomic_write(file) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")


def machine() -> str:
    """The device's name and the versions that ran, in one line."""
    import diffusers
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return f"{device}; torch {torch.__version__}, diffusers {diffusers.__version__}, CUDA {torch.version.cuda}"


def _run_script(peak_file: Path, script: str, overrides: Sequence[str]) -> None:
    """Runs a script as its own command line does, and writes the peak of GPU memory whatever happens."""
    import torch

    sys.argv = [str(SCRIPTS / f"{script}.py"), *overrides]
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    finally:
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        with atomic_write(peak_file) as partial:
            partial.write_text(json.dumps({"peak_gib": peak}))


if __name__ == "__main__":
    _run_script(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
