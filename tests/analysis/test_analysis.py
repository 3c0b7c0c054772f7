"""Perturbation keeps mean and spread, acts from its step on, leaves no hook; drift is that of the roll-out's r_out."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.commands import run
from helpers.models import small_unet
from torch import Tensor

from clockwork.adaptors import NO_HISTORY
from clockwork.analysis.drift import drift, feature_change
from clockwork.analysis.perturbation import Perturbation, PerturbedDenoiser, layers, perturb
from clockwork.miniature.prompts import scene_prompts
from clockwork.reports.analysis import summary
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import load_teacher
from clockwork.unet.split import SplitUNet


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    teacher = load_teacher("miniature", guidance=3.0)
    return Sampler(teacher, SplitUNet(teacher.unet), Schedule(), "dpm++", 4, 3.0)


@pytest.mark.parametrize(("over", "axes"), [("example", (1, 2, 3)), ("channel", (2, 3))])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_mean_and_spread_are_kept(over: str, axes: tuple[int, ...], alpha: float) -> None:
    """Equation 1, on features whose channels differ in both: the error of 10⁴ values and more is some per cent."""
    rng = torch.Generator().manual_seed(0)
    scale, shift = torch.rand(2, 5, 1, 1, generator=rng) + 0.5, torch.randn(2, 5, 1, 1, generator=rng)
    f, noise = torch.rand(2, 5, 128, 128, generator=rng) * scale + shift, torch.randn(2, 5, 128, 128, generator=rng)
    disturbed = perturb(f, alpha, noise, over)
    assert torch.allclose(disturbed.mean(axes), f.mean(axes), atol=0.03)
    assert torch.allclose(disturbed.std(axes), f.std(axes), rtol=0.03)
    if over == "example":  # what is left of the features themselves
        both = torch.stack([f[0].flatten(), disturbed[0].flatten()])
        assert torch.corrcoef(both)[0, 1].item() == pytest.approx(alpha**0.5, abs=0.02)


def test_nothing_but_mean_and_spread_is_left_at_alpha_0() -> None:
    rng = torch.Generator().manual_seed(0)
    f, noise = torch.randn(2, 1, 3, 8, 8, generator=rng).unbind(0)
    assert torch.allclose(perturb(f, 0, noise), perturb(f.flip(2), 0, noise), atol=1e-6)
    assert torch.allclose(perturb(f, 1, noise), f, atol=1e-6)


def latents(sampler: Sampler, ids: list[int], **perturbed: float) -> list[Tensor]:
    layer = sampler.split.unet.up_blocks[0].upsamplers[0]
    denoiser = PerturbedDenoiser(sampler.denoiser, layer, 0.3, perturbed["clean"], ids) if perturbed else None
    prompts = scene_prompts("test", 9)
    return [r.latents for r in sampler.rollout([prompts[i].text for i in ids], sampler.teacher.noise(ids), denoiser)]


def test_it_acts_from_its_step_on_and_leaves_nothing_behind(sampler: Sampler) -> None:
    plain, disturbed, again = latents(sampler, [0, 1]), latents(sampler, [0, 1], clean=2), latents(sampler, [0, 1])
    assert [torch.equal(a, b) for a, b in zip(plain, disturbed, strict=True)] == [True, True, False, False]
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))
    alone = latents(sampler, [1], clean=0)[-1]  # the same noise in any batch
    assert torch.allclose(latents(sampler, [0, 1], clean=0)[-1][1:], alone, atol=1e-4)


def test_an_exception_leaves_no_hook(sampler: Sampler) -> None:
    layer = sampler.split.unet.conv_in

    def fails(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        denoiser = PerturbedDenoiser(fails, layer, 0.3, 0, [0])
        denoiser(*(torch.zeros(1),) * 2, None, 1, NO_HISTORY)  # type: ignore[arg-type]
    assert not layer._forward_hooks


def test_layers_are_the_papers() -> None:
    unet = small_unet("sd15")
    assert list(layers(unet, "up")) == ["up1", "up2", "up3"] and list(layers(unet, "down")) == [
        "down1",
        "down2",
        "down3",
    ]
    assert layers(unet, "up")["up1"] is unet.up_blocks[0].upsamplers[0]
    assert layers(unet, "bottleneck") == {"bottleneck": unet.mid_block}
    with pytest.raises(ValueError, match="use layers=up or down or conv_in"):
        layers(small_unet("bk_sdm_tiny"), "bottleneck")


def test_effects_are_root_mean_squares(sampler: Sampler) -> None:
    (one,) = Perturbation.each(sampler, "conv_in", [1], 0.3)
    black = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    rows = one.effects(scene_prompts("test", 2), [black + 51], [black])
    assert [row["distance"] for row in rows] == pytest.approx([0.2, 0.2]) and one.name == "conv_in-from1"


def test_drift_sees_r_out_at_every_cut(sampler: Sampler) -> None:
    """One pass with hooks equals one roll-out a cut, whose records hold r_out."""
    teacher = sampler.teacher
    ids, cuts = [3, 4], ["layer1", "stage1", "stage1_upsampled", "4,7"]  # the last: the middle's output
    prompts = scene_prompts("test", 5)[3:]
    found = drift(sampler, prompts, cuts)
    for cut in cuts:
        there = replace(sampler, split=SplitUNet(teacher.unet, cut))
        r_out = [r.denoised.r_out for r in there.rollout([p.text for p in prompts], teacher.noise(ids))]
        for step in (2, 3, 4):
            relative, cosine = feature_change(r_out[step - 1], r_out[step - 2])
            mine = [row for row in found if (row.cut, row.step) == (cut, step)]
            assert [row.prompt for row in mine] == ids
            assert [row.relative_l2 for row in mine] == relative.reshape(2, 2).mean(0).tolist()
            assert [row.cosine for row in mine] == cosine.reshape(2, 2).mean(0).tolist()


def test_the_commands_write_figures_grids_and_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small = ["steps=2", "count=2", f"output={tmp_path}/there"]
    run(monkeypatch, "perturb", *small, "from_steps=[0,1]", "grids=1", "layers=down")
    run(monkeypatch, "drift", *small)
    assert {f.name for f in (tmp_path / "there").iterdir()} >= {
        "perturbation.csv",
        "perturbation.png",
        "grid-0.png",
        "drift.csv",
        "drift.png",
    }
    assert len((tmp_path / "there" / "perturbation.csv").read_text().splitlines()) == 1 + 3 * 2 * 2
    assert "down3" in capsys.readouterr().out


def test_summary_is_mean_least_and_most() -> None:
    rows = [{"cut": "a", "step": 2, "x": 1.0}, {"cut": "a", "step": 2, "x": 3.0}, {"cut": "b", "step": 2, "x": 5.0}]
    assert summary(rows, "cut", "step", "x") == {"a": {2: (2.0, 1.0, 3.0)}, "b": {2: (5.0, 5.0, 5.0)}}
