"""Runs the commands that a user runs, one process each, and writes times, peak memory and ratios into a report."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from clockwork.errors import UserError
from clockwork.experiments.cli import entry
from clockwork.io.atomic import atomic_write
from clockwork.io.device import choose_device, choose_precision

CAPTIONS = ["a lighthouse at dusk", "a red bicycle against a wall", "two cats on a sofa", "a bowl of oranges"]
LIMITS_GIB = {
    "train": 12.0,
    "resume": 12.0,
    "calibrate": 12.0,
    "evaluate": 8.0,
}  # of GPU memory, SD v1.5 in float16 at 512 × 512


@dataclass(frozen=True)
class Stage:
    """One command: a name for the report, its verb, and its overrides."""

    name: str
    verb: str
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
    command = [sys.executable, "-m", "clockwork.experiments.gpu_check", str(peak_file), stage.verb, *stage.overrides]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    peak = json.loads(peak_file.read_text())["peak_gib"] if peak_file.is_file() else None
    within = peak is None or peak <= LIMITS_GIB.get(stage.name, float("inf"))
    output = done.stdout[-6000:] if done.returncode == 0 else (done.stdout + done.stderr)[-6000:]
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


def stages(cfg: DictConfig, folder: Path) -> list[Stage]:
    """The commands in their order; later ones use what earlier ones made."""
    captions, image = folder / "captions.txt", folder / "generated" / "image.png"
    captions.write_text("\n".join(CAPTIONS * 4) + "\n")
    where = [f"device={cfg.device}", f"precision={cfg.precision}"]
    teacher = ["teacher=miniature_sd"] if cfg.small else ["teacher=sd15", f"teacher.path={folder / 'sd15'}"]
    at = [*teacher, *where, f"steps={2 if cfg.small else 4}"]
    prompts = ["prompts=captions", f"prompts.path={captions}", f"prompts.count={4 if cfg.small else 8}"]
    # Random weights for the text embedder are not to be had from a hub: the adaptor reads no text.
    train = ["train", *at, *prompts, "adaptor=resnet_no_text", "prompts_per_epoch=4", "repeats_per_epoch=1",
             "samples_every=1", "val_prompts=0", "generation_batch_size=4", "guided=1",
             f"output={folder / 'adaptors'}"]  # fmt: skip
    measure = [
        "evaluate",
        *at,
        *prompts,
        "metrics=none",
        f"adaptors={folder / 'adaptors'}",
        f"output={folder / 'eval'}",
    ]
    points = (
        "points=[{adaptor: none, schedule: full}, {adaptor: identity}, {adaptor: linear}, {adaptor: resnet_no_text}]"
    )
    edit = ["edit", *teacher, *where, f"image={image}", "source=a lighthouse", "target=a castle", "edit_metrics=none",
            "inversion.steps=4", "generation.steps=4", "resize=true", f"output={folder / 'edit'}"]  # fmt: skip
    calibrate = ["calibrate", *at, *prompts, "count=4", "batch_size=2", f"output={folder / 'adaptors'}"]
    commands = {
        "train": [*train, "epochs=1"],
        "resume": [*train, "epochs=2"],
        "calibrate": calibrate,
        "evaluate": [*measure, points],
        "generate": ["generate", *at, f"prompt={CAPTIONS[0]}", f"output={image}"],
        "edit": edit,
        **_benchmarks(cfg, [*teacher, *where], folder),
    }
    if not cfg.small:
        weights = ["random_teacher", "architecture=sd15", f"path={folder / 'sd15'}"]
        commands = {"weights": weights, **commands}
    return [Stage(name, verb, tuple(overrides)) for name, (verb, *overrides) in commands.items()]


def _benchmarks(cfg: DictConfig, teacher: list[str], folder: Path) -> dict[str, list[str]]:
    """Uncompiled and compiled steps, which fail if their results are not those that they are compared with."""
    timed = ["bench", *teacher, "work_rounds=0"]
    timed += ["steps=2", "rounds=3", "rollout_rounds=3"] if cfg.small else ["steps=8", "rounds=9", "rollout_rounds=9"]
    # Compiled without and with CUDA graphs.
    modes = "{backend: eager}" if cfg.small else "{mode: default}, {mode: reduce-overhead}"
    return {
        "bench": [*timed, "compile=[]", f"batch={2 if cfg.small else 8}", f"output={folder / 'bench-timings.json'}"],
        "compiled": [
            *timed,
            f"compile=[{modes}]",
            "rivals=[]",
            "batch=1",
            f"output={folder / 'compiled-timings.json'}",
        ],
    }


def check_gpu(cfg: DictConfig) -> None:
    """Runs all stages and writes the report; exits with status 1 if one failed."""
    choose_precision(cfg.precision, choose_device(cfg.device))
    folder = Path(cfg.output)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"output={folder} is not empty: pass output=<a new folder>, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for stage in stages(cfg, folder):
        results.append(run_stage(stage, folder))
        print(f"{stage.name}: {'passed' if results[-1].passed else 'failed'}, {results[-1].seconds:.1f} s", flush=True)
        write_report(results, folder / "report.md", machine())
    print(f"report in {folder / 'report.md'}")
    sys.exit(not all(result.passed for result in results))


def _run_command(peak_file: Path, verb: str, overrides: Sequence[str]) -> None:
    """Runs a command as its own command line does, and writes the peak of GPU memory whatever happens."""
    import torch

    sys.argv = [verb, *overrides]
    try:
        entry(verb)()
    finally:
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        with atomic_write(peak_file) as partial:
            partial.write_text(json.dumps({"peak_gib": peak}))


if __name__ == "__main__":
    _run_command(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
