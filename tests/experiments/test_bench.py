"""`scripts/bench.py`: what it times computes what its name says, and what it writes can be compared with."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.commands import ROOT, answers_in_one_sentence, run
from helpers.exporting import tiny_pipeline
from hydra import initialize_config_dir

from clockwork.adaptors import Identity, Taylor
from clockwork.experiments.bench_hook import STEPS, hook_image
from clockwork.experiments.bench_parts import Parts
from clockwork.experiments.configs import compose_config
from clockwork.pipeline.hook import get_hook
from clockwork.reports.timings import Timings
from clockwork.teachers import Teacher

QUICK = ["steps=2", "batch=1", "rounds=1", "rollout_rounds=1", "work_rounds=0", "device=cpu"]


@torch.no_grad()
def parts(*overrides: str) -> Parts:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        return Parts(compose_config("bench", [*QUICK, *overrides]))


@pytest.mark.slow
@torch.no_grad()
def test_steps_and_rollouts_are_those_of_their_names() -> None:
    timed = parts("rivals=[deepcache2]", "compile=[{backend: eager}]", "teacher=miniature_sd", "steps=4")
    cases = {**timed.steps(), **timed.rollouts(), **timed.rivals(), **timed.compiled()}
    assert all(case.to is None or case.to in cases for case in cases.values())
    assert torch.equal(cases["the UNet"].call()[0], cases["a full step"].call().output)
    rollout, pipeline = cases["the roll-out"].call(), cases["diffusers' pipeline"].call().images
    assert pipeline.shape == rollout.shape
    name = "the roll-out, identity clock2 at layer1"
    assert torch.equal(cases[name].call(), cases["the roll-out, deepcache2"].call())
    compiled = cases["a full step, backend=eager"].call()
    assert all(map(torch.equal, compiled, cases["a full step"].call()))
    assert torch.equal(cases["the roll-out, backend=eager"].call(), rollout)
    assert timed.differences() == {"backend=eager": 0.0}
    step = cases["an adaptor step, identity"]
    assert (
        step.flops_ratio is not None and 0 < step.flops_ratio < 1 and step.bar == pytest.approx(1.02 * step.flops_ratio)
    )


@pytest.mark.slow
@torch.no_grad()
def test_exported_steps_and_rollouts_are_those_of_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = Teacher("tiny", tiny_pipeline(), guidance=3.0)  # whose export takes seconds
    monkeypatch.setattr("clockwork.experiments.bench_parts.instantiate", lambda _: tiny)
    timed = parts("exported=[pt2]", "steps=4")
    cases = {**timed.steps(), **timed.rollouts(), **timed.exported()}
    for name in ("a full step", "an adaptor step, linear"):
        for exported, expected in zip(cases[f"{name}, pt2"].call(), cases[name].call(), strict=False):
            torch.testing.assert_close(torch.from_numpy(exported), expected, rtol=1e-4, atol=1e-4)
    latents = torch.from_numpy(cases["the roll-out, linear clock2, pt2"].call())
    torch.testing.assert_close(latents, cases["the roll-out, linear clock2"].call(), rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("adaptor", [Identity(), Taylor(order=2)])
def test_the_hook_runs_an_image_without_its_computation(adaptor: Any, teacher: Teacher) -> None:
    image, hook = hook_image(teacher, "layer1", adaptor)
    layers = []
    hook.denoiser.split.unet.conv_in.register_forward_hook(lambda *_: layers.append(1))
    image()
    assert [step.full for step in hook.log.steps] == [True, False] * (STEPS // 2) and not layers
    assert not any(step.forced_full_reason for step in hook.log.steps)
    assert get_hook(teacher.unet) is None


def test_rows_and_a_table_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "timings.json"
    quick = [*QUICK, "compile=[]", "rivals=[]", f"output={file}"]
    run(monkeypatch, "bench", *quick)
    rows = {row.what: row for row in Timings.read(file).rows}
    assert rows["the UNet"].ratio is None and rows["a full step"].to == "the UNet"
    hooks = [row for name, row in rows.items() if name.startswith("the hook per step")]
    assert len(hooks) == 5 and all(0 < row.ms < 5 for row in hooks)
    table = capsys.readouterr().out
    assert "threads" in table and all(name in table for name in rows)
    run(monkeypatch, "bench", *quick, f"compare={file}")
    assert "before" in (text := capsys.readouterr().out) or "nothing has become slower" in text


@pytest.mark.parametrize(
    ("mistake", "message"),
    [("compare=nowhere.json", "no timings"), ("compare=pyproject.toml", "does not hold timings")],
)
def test_a_wrong_file_to_compare_with_is_refused_first(
    mistake: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("clockwork.experiments.bench.Parts", None)
    with pytest.raises(SystemExit) as ended:
        run(monkeypatch, "bench", mistake, f"output={tmp_path / 'timings.json'}")
    answers_in_one_sentence(ended.value.code, capsys, message, tmp_path)
