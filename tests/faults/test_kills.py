"""Commands that are killed at random moments and started again end as those that nothing has disturbed."""

import json
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.processes import start

from clockwork.evaluation.rows import read_rows

TRAIN = [
    "scripts/train.py",
    "steps=2",
    "adaptor.width=8",
    "prompts_per_epoch=4",
    "repeats_per_epoch=2",
    "batch_size=4",
    "val_prompts=4",
    "epochs=4",
    "prompts.count=100",
    "samples_every=2",
    "ema=0.9",
    "keep=best",
    "device=cpu",
]
POINTS = (
    "{adaptor: none, schedule: full}",
    "{adaptor: identity, schedule: clock2}",
    "{adaptor: taylor1, schedule: clock4}",
)
EVALUATE = [
    "scripts/evaluate.py",
    f"points=[{', '.join(POINTS)}]",
    "steps=4",
    "metrics=miniature",
    "metrics.reference=120",
    "metrics.latency=false",
    "batch_size=2",
    "prompts.count=6",
    "device=cpu",
]
few_and_many = pytest.mark.parametrize(
    "count", [pytest.param(2, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.faults)]
)


def run(words: Sequence[str]) -> float:
    """Runs a command to its end; returns the seconds that it took."""
    process, begin = start(*words), time.monotonic()
    status, _, errors = process.wait()
    assert status == 0, errors
    return time.monotonic() - begin


def kill_after(words: Sequence[str], seconds: float) -> bool:
    """Kills a command after some seconds; returns False if it has ended before."""
    process = start(*words)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    return process.wait()[0] == -signal.SIGKILL


def kill_at_random_moments(
    count: int, folder: Path, command: Callable[[Path], list[str]], result: Callable[[Path], Any]
) -> None:
    """Kills as many runs, each once, somewhere in its part of the duration, and compares them with one that is not."""
    rng, killed = random.Random(0), 0
    seconds = run(command(folder / "undisturbed"))
    expected = result(folder / "undisturbed")
    begin = time.monotonic()
    for number in range(count):
        place = folder / str(number)
        killed += kill_after(command(place), seconds * (number + rng.random()) / count)
        run(command(place))
        assert result(place) == expected, f"killed run {number}"
        assert not [file for file in place.rglob("*") if file.name.endswith((".partial", ".replaced"))]
    print(f"\n{killed} kills, {count} of {count} runs the same, {time.monotonic() - begin:.0f} s")
    assert killed >= count // 2


def files(folder: Path, *patterns: str) -> dict[str, bytes]:
    found = (file for pattern in patterns for file in folder.rglob(pattern))
    return {str(file.relative_to(folder)): file.read_bytes() for file in found}


@few_and_many
def test_a_killed_training_ends_with_the_same_adaptor(count: int, tmp_path: Path) -> None:
    def trained(folder: Path) -> Any:
        (config,) = folder.rglob("adaptor/config.json")
        figures = json.loads(config.read_text())["training"]
        return figures, files(folder, "adaptor.safetensors", "*.png"), sorted(files(folder, "*.ckpt"))

    kill_at_random_moments(count, tmp_path, lambda folder: [*TRAIN, f"output={folder}"], trained)


@few_and_many
def test_a_killed_sweep_ends_with_the_same_rows_and_images(count: int, tmp_path: Path) -> None:
    def measured(folder: Path) -> Any:
        rows = [
            {key: value for key, value in row.items() if key != "command"} for row in read_rows(folder / "rows.jsonl")
        ]
        assert len((folder / "rows.jsonl").read_bytes().splitlines()) == len(rows) == 3
        return rows, files(folder, "*.png", "*.npz", "prompts/*.json")

    kill_at_random_moments(
        count, tmp_path, lambda folder: [*EVALUATE, f"output={folder}", f"metrics.cache={folder}/cache"], measured
    )
