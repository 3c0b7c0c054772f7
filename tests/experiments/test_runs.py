"""Several noise seeds and fits: one row each, and one point in the reports."""

from pathlib import Path

import pytest
import torch
from helpers.commands import answers_in_one_sentence, run
from hydra import initialize_config_dir

from clockwork.adaptors import ResNet, save_adaptor
from clockwork.errors import UserError
from clockwork.evaluation.rows import read_rows
from clockwork.experiments.build import make_sampler
from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.configs import compose_config
from clockwork.experiments.run_dir import adaptor_folder
from clockwork.experiments.runs import at_fit, paired
from clockwork.reports.spreads import with_spreads
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.teachers import load_teacher

FEW = [
    "steps=2",
    "metrics=none",
    "metrics.latency=false",
    "prompts.count=2",
    "points=[{adaptor: resnet}, {adaptor: none}]",
]


def test_seeds_are_a_number_or_a_list_without_repeats() -> None:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        assert compose_config("evaluate", ["seeds=3", "fits=[4,2]"]).seeds == [0, 1, 2]
        for words in ("seeds=[1,1]", "fits=[0,2,0]", "seeds=0", "seeds=[-1]", "fits=[]", "seeds=true"):
            with pytest.raises(UserError, match=r"is not allowed: use .*seeds that differ"):
                compose_config("evaluate", [words])
        with pytest.raises(UserError, match=r"seeds=\[0,0\] is not allowed"):
            compose_config("evidence", ["seeds=[0,0]"])


def test_runs_take_noise_and_fits_in_pairs() -> None:
    assert paired([0, 1, 2], [5, 6]) == [(0, 5), (1, 6), (2, 5)]
    assert paired([3, 4], None) == [(3, None), (4, None)]


def test_a_row_per_run_and_a_point_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two fits of one adaptor with two noise seeds; the same adaptor measured without `fits` first is the first fit."""
    teacher = load_teacher("miniature", guidance=3.0)
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        cfg = compose_config("evaluate", ["steps=2", f"adaptors={tmp_path / 'adaptors'}"])
    for fit in (0, 1):
        torch.manual_seed(fit)
        of_fit = at_fit(cfg, fit)
        adaptor = ResNet(feature_dims(teacher, "stage1"), width=8, blocks=1, inputs=("r_in", "r_out_prev"))
        torch.nn.init.normal_(adaptor.up.weight, std=0.01)
        point = make_sampler(of_fit, teacher, adaptor, "resnet").point
        save_adaptor(adaptor_folder(of_fit, "resnet", of_fit.adaptors) / "adaptor", adaptor, point)
    words = [*FEW, f"output={tmp_path / 'eval'}", "logger=none"]
    run(monkeypatch, "evaluate", *words, f"adaptors={tmp_path / 'adaptors' / 'fit0'}")
    run(monkeypatch, "evaluate", *words, f"adaptors={tmp_path / 'adaptors'}", "seeds=2", "fits=2")
    rows = read_rows(tmp_path / "eval" / "rows.jsonl")
    assert {(row["adaptor"], row["seed"], row["fit"]) for row in rows} == {
        *(("resnet", 0, 0), ("resnet", 1, 1)),
        *(("none", 0, None), ("none", 1, None)),
    }
    assert len(rows) == 4 and len({row["adaptor_hash"] for row in rows if row["adaptor"] == "resnet"}) == 2
    resnet, none = with_spreads(rows)
    assert resnet["rows"] == none["rows"] == 2 and resnet["spreads"]["psnr"] > 0
    table = capsys.readouterr().out.splitlines()
    (line,) = [line for line in table[-6:] if "resnet" in line]
    assert f"{resnet['metrics']['psnr']:.2f} ± {resnet['spreads']['psnr']:.2f}" in line


def test_a_fit_that_was_not_made_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "eval").mkdir()
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, "evaluate", *FEW, f"output={tmp_path / 'eval'}", "adaptors=nowhere", "fits=[7]")
    expected = "seed=7 output=nowhere/fit7"
    answers_in_one_sentence(stopped.value.code, capsys, expected, tmp_path / "eval")
