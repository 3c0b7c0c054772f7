"""What adaptors read of the past in editing: the source is one more conditional example, until it leaves the batch."""

from typing import Any

import pytest
import torch
from helpers.editing import PICTURE, SOURCE, editor
from torch import Tensor

from clockwork.adaptors import Adaptor, FeatureDims
from clockwork.editing.edit import Editor
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.teachers import Teacher, load_teacher


class Witness(Adaptor, kind="witness"):
    """The identity, which stores what it is given."""

    def __init__(self, dims: FeatureDims) -> None:
        super().__init__(dims, ("r_in", "r_out_prev", "r_in_prev", "full_steps", "step", "branch"))
        self.calls: list[dict[str, Any]] = []

    def forward(
        self, r_in: Tensor, r_out_prev: Tensor, t_emb: Tensor | None, text_emb: Tensor | None, **history: Any
    ) -> Tensor:
        self.calls.append({"r_in": r_in, "r_out_prev": r_out_prev, **history})
        return r_out_prev


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("miniature", guidance=3.0, device="cpu")


def watched(teacher: Teacher, **settings: Any) -> tuple[Editor, Witness]:
    plain = editor(teacher, 6, 6, "clock3", tau_f=0.3, tau_a=0.3, **settings)
    witness = Witness(feature_dims(teacher, str(plain.generation.split.cut)))

    def with_witness(sampler: Sampler) -> Sampler:
        values = {
            name: getattr(sampler, name) for name in ("teacher", "split", "schedule", "solver", "steps", "guidance")
        }
        return Sampler(**values, adaptor=witness, adaptor_name="witness")

    return Editor(
        with_witness(plain.inversion), with_witness(plain.generation), **settings, tau_f=0.3, tau_a=0.3
    ), witness


@pytest.mark.parametrize("keep_source", [True, False])
def test_each_example_keeps_its_past_and_its_half(teacher: Teacher, keep_source: bool) -> None:
    """Injection ends after the first of six steps; adaptor steps are 2, 3, 5 and 6, full ones 1 and 4."""
    edits, witness = watched(teacher, keep_source=keep_source)
    latents = edits.invert(PICTURE, SOURCE.caption)
    inversion = witness.calls
    assert [call["step"] for call in inversion] == [2, 3, 5, 6]
    assert all(call["branch"] is None for call in inversion), "inversion has no guidance"
    witness.calls = []
    edits.edit(latents, "a large blue ring")
    half = [1, 0, 1] if keep_source else [0, 1]
    assert [call["branch"].tolist() for call in witness.calls] == [half] * 4
    second, third, fifth, sixth = witness.calls
    for call, before in ((third, second), (sixth, fifth)):
        assert torch.equal(call["r_in_prev"], before["r_in"]) and torch.equal(call["r_out_prev"], before["r_out_prev"])
    assert [full.step for full in second["full_steps"]] == [1]
    assert [full.step for full in sixth["full_steps"]] == [4, 1]
    assert torch.equal(second["full_steps"][0].r_out, sixth["full_steps"][1].r_out)
    assert {len(full.r_in) for call in witness.calls for full in call["full_steps"]} == {len(half)}
