"""What is kept between the steps of a roll-out: what the adaptor reads, and nothing else."""

from typing import Any

import pytest
import torch
from torch import Tensor

from clockwork.adaptors import NO_HISTORY, Adaptor, History, Identity, Linear, Taylor
from clockwork.errors import UserError
from clockwork.sampling.denoisers import ClockworkDenoiser, Denoised, Denoiser, FullDenoiser
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.rollout import StepRecord, rollout
from clockwork.sampling.solvers import make_solver
from clockwork.schedule import Schedule
from clockwork.teachers import Condition, Teacher, load_teacher
from clockwork.unet.split import SplitUNet

STEPS = 8
FULL = [1, 3, 5, 7]  # with clock2


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, device="cpu")


class Recorder:
    """Records the history that each step of a roll-out receives."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser, self.histories = denoiser, list[History]()

    def __call__(self, sample: Tensor, t: Tensor, condition: Condition, step: int, history: History) -> Denoised:
        self.histories.append(history)
        return self.denoiser(sample, t, condition, step, history)


def run(teacher: Teacher, adaptor: Adaptor | None) -> tuple[list[History], list[StepRecord]]:
    split = SplitUNet(teacher.unet)
    denoiser = ClockworkDenoiser(split, adaptor, Schedule.parse("clock2")) if adaptor else FullDenoiser(split)
    recorder = Recorder(denoiser)
    conditions = teacher.encode(["a green star"]), teacher.encode([""])
    solver = make_solver("dpm++", teacher.noise_schedule)
    records = list(rollout(recorder, solver, STEPS, teacher.noise([0]), *conditions, 3.0))
    return recorder.histories, records


def test_without_an_adaptor_nothing_is_kept(teacher: Teacher) -> None:
    assert run(teacher, None)[0] == [NO_HISTORY] * STEPS


def test_the_identity_keeps_the_previous_features_alone(teacher: Teacher) -> None:
    histories, records = run(teacher, Identity())
    assert histories[0] == NO_HISTORY
    for history, previous in zip(histories[1:], records, strict=False):
        assert history.r_out_prev is previous.denoised.r_out, "no copy"
        assert (history.r_in_prev, history.full_steps) == (None, ())


@pytest.mark.parametrize("order", [1, 2])
def test_taylor_keeps_r_out_of_the_last_full_steps_alone(teacher: Teacher, order: int) -> None:
    histories, records = run(teacher, Taylor(order=order))
    for step, history in enumerate(histories, 1):
        expected = [full for full in reversed(FULL) if full < step][: order + 1]
        assert [full.step for full in history.full_steps] == expected
        assert (history.r_out_prev, history.r_in_prev) == (None, None)
        for full in history.full_steps:
            assert full.r_out is records[full.step - 1].denoised.r_out and full.r_in is None
    assert len(histories[-1].full_steps) == order + 1


def test_linear_keeps_all_that_its_terms_read(teacher: Teacher) -> None:
    histories, records = run(teacher, Linear(feature_dims(teacher, "stage1"), (2, 4, 6, 8)))
    last = histories[-1]
    assert (last.r_out_prev, last.r_in_prev) == (records[-2].denoised.r_out, records[-2].denoised.r_in)
    assert [(full.step, full.r_in, full.r_out) for full in last.full_steps] == [
        (step, records[step - 1].denoised.r_in, records[step - 1].denoised.r_out) for step in (7, 5)
    ]


def test_a_rollouts_forecasts_are_taylors_of_its_full_steps(teacher: Teacher) -> None:
    """Order 0 at step 2, 1 at step 4, then 2, by the weights of the three full steps."""
    _, records = run(teacher, Taylor(order=2))
    r_out: dict[int, Tensor] = {record.step: record.denoised.r_out.double() for record in records}
    weights: dict[int, Any] = {2: [1], 4: [1.5, -0.5], 6: [13 / 8, -6 / 8, 1 / 8], 8: [13 / 8, -6 / 8, 1 / 8]}
    for step, by_full_step in weights.items():
        expected = sum(w * r_out[step - 1 - 2 * i] for i, w in enumerate(by_full_step))
        torch.testing.assert_close(r_out[step], expected, rtol=1e-5, atol=1e-4)


def test_a_forecaster_needs_a_full_first_step(teacher: Teacher) -> None:
    with pytest.raises(UserError, match="schedule always has no full step"):
        ClockworkDenoiser(SplitUNet(teacher.unet), Taylor(), Schedule.parse("always"))
