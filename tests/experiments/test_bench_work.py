"""What `scripts/bench.py` times besides steps and roll-outs, its rounds, and how long is left."""

from pathlib import Path

import pytest
import torch
from helpers.commands import ROOT
from hydra import initialize_config_dir

from clockwork.experiments.bench_parts import Case
from clockwork.experiments.bench_rounds import Group, time_groups
from clockwork.experiments.bench_work import EVALUATION, STAGES, TEACHER, Work, stage_name, summary
from clockwork.reports.timings import Timing


def test_groups_run_in_turn_and_say_how_long_is_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a clock that moves only while a case runs, so that all numbers are known."""
    now, calls = [0.0], list[str]()
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def case(name: str, seconds: float, count: int = 1) -> Case:
        def call() -> None:
            calls.append(name)
            now[0] += seconds

        return Case(call, count=count)

    first = Group("first", {"a": case("a", 2.0), "b": case("b", 3.0, count=2)}, rounds=2, warm_up=2)
    second = Group("second", {"c": case("c", 7.0)}, rounds=1)
    never = Group("never", {"d": case("d", 1.0)}, rounds=0)
    times = time_groups([first, second, never], torch.device("cpu"))
    assert times == {"a": [2000.0] * 2, "b": [1500.0] * 2, "c": [7000.0]}
    assert calls == [*"abab", "c", *"abab", "c"]
    _, *lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "first, round 1 of 2: about 17 s left",
        "first, round 2 of 2: about 12 s left",
        "second, round 1 of 1: about 7 s left",
    ]


def test_shares_and_images_per_second() -> None:
    rows = [
        Timing(TEACHER, 20.0, 0.0, EVALUATION, 0.8),
        Timing("training, per caption", 25.0, 0.0, TEACHER, 1.25),
        Timing(EVALUATION, 25.0, 0.0),
        *(Timing(stage_name(stage), 1.0, 0.0, EVALUATION, 0.04) for stage in STAGES),
    ]
    shares, speeds = summary(rows)
    assert shares.endswith("training 0.800")
    assert "40.0 end to end" in speeds and "UNet 50.0, text 1000.0, VAE 1000.0, metrics 1000.0" in speeds


@pytest.mark.slow
@torch.no_grad()
def test_training_calibration_and_evaluation_run(tmp_path: Path) -> None:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        work = Work("cpu", tmp_path, count=8)
        cases = work.cases()
    assert all(case.to is None or case.to in cases for case in cases.values())
    assert {case.count for case in cases.values()} == {8}
    for case in cases.values():
        case.call()
    once, often = (case for name, case in cases.items() if name.startswith("training"))
    assert once.flops_ratio is not None and often.flops_ratio is not None
    # The adaptor's share of the FLOPs grows with the number of times that an example is used.
    assert often.flops_ratio - 1 == pytest.approx(6 * (once.flops_ratio - 1))
    (latents,) = cases[TEACHER].call()
    assert latents.shape == (8, *work.teacher.latent_shape)
    assert cases[stage_name("VAE")].call().shape == (8, 3, 32, 32)
