"""What a calibration says it will take, against what it took."""

from typing import Any

import pytest
from helpers.calibration import small_sampler

from clockwork.calibration.denoiser import CalibratingDenoiser
from clockwork.calibration.fit import calibrate_sampler
from clockwork.calibration.options import FitOptions
from clockwork.calibration.plan import calibration_plan
from clockwork.calibration.statistics import Moments
from clockwork.errors import UserError
from clockwork.miniature.prompts import scene_prompts
from clockwork.sampling.denoisers import Denoised
from clockwork.teachers import Teacher


def test_a_plan_is_what_the_calibration_takes(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of the middle block are those of the low-res path; sums and features are those that the steps keep."""
    passes, sums, features = [0], [0], [0]
    hook = teacher.unet.mid_block.register_forward_hook(lambda _, __, output: passes.append(len(output)))
    zeros, call = Moments.zeros, CalibratingDenoiser.__call__

    def counted_zeros(*args: int) -> Moments:
        sums.append(2 * zeros(*args).products.nbytes)
        return zeros(*args)

    def counted_call(denoiser: CalibratingDenoiser, *args: Any) -> Denoised:
        denoised = call(denoiser, *args)
        kept = [*denoised.history.full_steps, denoised]
        features.append(sum(each.r_in.nbytes + each.r_out.nbytes for each in kept))
        return denoised

    monkeypatch.setattr(Moments, "zeros", staticmethod(counted_zeros))
    monkeypatch.setattr(CalibratingDenoiser, "__call__", counted_call)
    sampler, options = small_sampler(teacher=teacher, steps=5), FitOptions(held_out_every=2)
    calibrated = calibrate_sampler(sampler, scene_prompts("train", 5), options=options)
    hook.remove()
    plan = calibration_plan(sampler, 5, options)
    assert plan.unet_passes == sum(passes) == 5 * 2 * 4
    assert (plan.steps, plan.fitted_steps, plan.held_out) == (4, len(calibrated.fits), 2)
    assert plan.sums_bytes == max(sums) and plan.features_bytes == max(features)
    assert f"{plan.unet_passes}  " in str(plan) and "of which 2 choose the ridge" in str(plan)


def test_what_cannot_be_calibrated_is_refused(teacher: Teacher) -> None:
    sampler = small_sampler(teacher=teacher, steps=2)
    for options, needed in ((FitOptions(), 3), (FitOptions(joint=True), 6)):
        with pytest.raises(UserError, match=rf"2 captions are too few: .* with at least {needed}"):
            calibration_plan(sampler, 2, options)
    assert calibration_plan(sampler, 2, FitOptions(terms=("r_in",))).fitted_steps == 1
    assert sampler.adaptor is not None
    channels = sampler.adaptor.dims.r_out
    with pytest.raises(UserError, match=f"rank {channels} is not below the {channels} channels"):
        calibration_plan(sampler, 8, FitOptions(rank=channels))
    assert calibration_plan(sampler, 8, FitOptions(rank=channels - 1), world_size=2).captions == 8
    with pytest.raises(UserError, match="no adaptor steps to calibrate"):
        calibration_plan(small_sampler(teacher=teacher, steps=1), 8, FitOptions())
