"""Calibrations that are stopped, or run in several processes, as a user starts them."""

import re
import signal
import time
from pathlib import Path

import pytest
import torch
from helpers.processes import Process, start, start_ranks
from safetensors.torch import load_file

from clockwork.evaluation.rows import image_folder, read_rows

FEW = [
    "scripts/calibrate.py",
    "prompts.count=100",
    "count=5",
    "held_out_every=2",
    "batch_size=1",
    "steps=6",
    "device=cpu",
]

pytestmark = pytest.mark.slow  # processes that load everything


def check(*processes: Process) -> str:
    """Returns what the first process has printed."""
    ended = [process.wait() for process in processes]
    assert all(status == 0 for status, _, _ in ended), ended
    return ended[0][1]


def weights(output: Path) -> dict[str, torch.Tensor]:
    (file,) = output.rglob("adaptor.safetensors")
    return load_file(file)


def stop_once_saved(number: signal.Signals, output: Path, processes: list[Process]) -> list[tuple[int, str]]:
    """Stops processes once each has saved its progress again; returns their statuses and messages."""
    start_time = time.time_ns()
    while sum(file.stat().st_mtime_ns > start_time for file in output.rglob("progress?.safetensors")) < len(processes):
        assert all(process.poll() is None for process in processes), [process.wait() for process in processes]
        time.sleep(0.01)
    for process in processes:
        process.send_signal(number)
    return [(status, errors) for status, _, errors in (process.wait() for process in processes)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("uninterrupted")
    check(start(*FEW, f"output={output}"))
    return output


def test_a_stopped_calibration_goes_on_to_the_same_maps(uninterrupted: Path, tmp_path: Path) -> None:
    ((status, errors),) = stop_once_saved(signal.SIGINT, tmp_path, [start(*FEW, f"output={tmp_path}")])
    assert status == 130 and "Traceback" not in errors, errors
    sentence = "the fitted steps and the sums of the next one are kept, and the same command goes on from there"
    assert f"stopped: {sentence}" in errors
    assert not list(tmp_path.rglob("adaptor")) and len(list(tmp_path.rglob("progress0.safetensors"))) == 1
    (folder,) = tmp_path.glob("*/*")
    (folder / "progress_of_mine.safetensors").touch()
    status, printed, errors = start(*FEW, f"output={tmp_path}").wait()
    assert status == 0 and re.search(r"resumed after [12] fitted steps", printed)
    assert all(torch.equal(weight, weights(tmp_path)[name]) for name, weight in weights(uninterrupted).items())
    assert printed.count("| 2    |") == 1  # the table has the fits of all runs
    files = {"adaptor", "config.json", "errors.png", "progress_of_mine.safetensors"}
    assert {file.name for file in folder.iterdir()} == files


def test_two_processes_fit_what_one_does(uninterrupted: Path, tmp_path: Path) -> None:
    """Also if SIGTERM has stopped them, and one of them is a step behind the other."""
    words = [*FEW, f"output={tmp_path}"]
    for status, errors in stop_once_saved(signal.SIGTERM, tmp_path, start_ranks(2, *words)):
        assert status == 143, errors
    next(tmp_path.rglob("progress1.safetensors")).unlink()
    printed = check(*start_ranks(2, *words))
    assert "5  of which 2 choose the ridge" in printed
    several, one = weights(tmp_path), weights(uninterrupted)
    assert all(torch.allclose(several[name], one[name], rtol=1e-6, atol=1e-6 * one[name].abs().max()) for name in one)
    assert {file.name for file in next(tmp_path.glob("*/*")).iterdir()} == {"adaptor", "config.json", "errors.png"}


def test_the_positive_half_in_two_processes(tmp_path: Path) -> None:
    """The same maps as in one process, and the same images and row of an evaluation with them."""
    words = [*FEW, "steps=2", "positive_only=true"]
    check(start(*words, f"output={tmp_path / 'one'}"), *start_ranks(2, *words, f"output={tmp_path / 'two'}"))
    one, two = (weights(tmp_path / name) for name in ("one", "two"))
    assert {"negative.weight", "negative.bias"} < one.keys() == two.keys()
    assert all(torch.allclose(two[name], one[name], rtol=1e-6, atol=1e-6 * one[name].abs().max()) for name in one)
    (folder,) = (tmp_path / "one").rglob("adaptor")
    words = ["scripts/evaluate.py", "adaptor=folder", f"adaptor.path={folder}", "steps=2", "prompts.count=5"]
    words += ["batch_size=2", "metrics=none", "metrics.latency=false", "device=cpu"]
    outputs = [tmp_path / name for name in ("rows", "rows of two")]
    check(start(*words, f"output={outputs[0]}"), *start_ranks(2, *words, f"output={outputs[1]}"))
    rows = [read_rows(output / "rows.jsonl")[0] for output in outputs]
    folders = [image_folder(output, row) for output, row in zip(outputs, rows, strict=True)]
    images = [{file.name: file.read_bytes() for file in folder.glob("*.png")} for folder in folders]
    assert images[0] == images[1] and len(images[0]) == 5
    assert {key for key in rows[0] if rows[0][key] != rows[1][key]} <= {"command"}
