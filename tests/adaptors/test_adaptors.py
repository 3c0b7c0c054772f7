"""Sizes against the paper's, a start that equals the identity, and what a folder keeps and refuses."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.adaptors import POINT, SMALL
from torch import Tensor, nn

from clockwork.adaptors import (
    Adaptor,
    FeatureDims,
    Identity,
    ResNet,
    UNet,
    adaptor_hash,
    check_text_embedder,
    load_adaptor,
    save_adaptor,
    warn_if_mismatched,
)
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint

SD15 = FeatureDims(r_in=320, r_out=640, t_emb=1280, text_emb=1024)


def features(size: tuple[int, int] = (9, 7)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((2, 8, *size), (2, 12, *size), (2, 16), (2, 10))
    r_in, r_out, t_emb, text = (torch.randn(s, generator=rng) for s in shapes)
    return r_in, r_out, t_emb, text


@pytest.mark.parametrize(
    ("adaptor", "millions"),
    [(ResNet, 13.86), (UNet, 151.87), (lambda dims: UNet(dims, 96, 2), 2.87)],
    ids=["resnet", "unet", "unet_light"],
)
def test_parameters_on_sd15_are_the_papers(adaptor: type[Adaptor], millions: float) -> None:
    """Table 3 prints 14M, 152M and 3M; PAPER.md derives the second decimal."""
    with torch.device("meta"):
        built = adaptor(SD15)
    assert round(sum(p.numel() for p in built.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize("kind", [ResNet, UNet])
def test_training_starts_from_the_identity(kind: type[ResNet] | type[UNet]) -> None:
    r_in, r_out, t_emb, text = features()
    assert torch.equal(kind(SMALL, 16, 2)(r_in, r_out, t_emb, text), r_out)
    assert torch.equal(Identity(SMALL)(None, r_out, None, None), r_out)


@pytest.mark.parametrize("kind", [ResNet, UNet])
@pytest.mark.parametrize("off", ["r_in", "r_out_prev", "t_emb", "text_emb"])
def test_an_input_switched_off_is_not_read(kind: type[ResNet] | type[UNet], off: str) -> None:
    names = ("r_in", "r_out_prev", "t_emb", "text_emb")
    torch.manual_seed(0)
    adaptor = kind(SMALL, 16, 2, tuple(n for n in names if n != off))
    for p in adaptor.parameters():
        torch.nn.init.normal_(p, std=0.1)
    given = dict(zip(names, features(), strict=True))
    answer = adaptor(**given)
    assert answer.shape == given["r_out_prev"].shape
    for name in names:
        other = adaptor(**{**given, name: given[name] + 1})
        assert torch.equal(other, answer) == (name == off), name


def test_inputs_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown"):
        ResNet(SMALL, inputs=("r_in", "noise"))
    with pytest.raises(ValueError, match="needs r_in, r_out_prev or full_steps"):
        ResNet(SMALL, inputs=("t_emb",))
    with pytest.raises(ValueError, match="start with a full step"):
        Identity(SMALL)(None, None, None, None)


@pytest.mark.parametrize("kind", [ResNet, UNet])
def test_folder_round_trip(kind: type[ResNet] | type[UNet], tmp_path: Path) -> None:
    adaptor = kind(SMALL, 16, 2, ("r_in", "t_emb"))
    save_adaptor(tmp_path / "a", adaptor, POINT)
    again, point = load_adaptor(tmp_path / "a")
    assert point == POINT
    assert adaptor_hash(again) == adaptor_hash(adaptor)
    r_in, _, t_emb, _ = features()
    assert torch.equal(again(r_in, None, t_emb, None), adaptor(r_in, None, t_emb, None))


def test_another_point_warns_and_another_teacher_refuses(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"steps 6, not 8; guidance 2\.0, not 3\.0"):
        warn_if_mismatched(POINT, replace(POINT, steps=6, guidance=2.0))
    with pytest.raises(ValueError, match="trained for teacher miniature"):
        warn_if_mismatched(POINT, replace(POINT, teacher_hash="other"))
    with pytest.raises(FileNotFoundError, match="not an adaptor folder"):
        load_adaptor(tmp_path)


class Scaled(Adaptor, kind="scaled"):
    """One of two adaptors in this file, whose kinds tell their folders apart."""

    def __init__(self, dims: FeatureDims, inputs: tuple[str, ...] = ("r_out_prev",)) -> None:
        super().__init__(dims, inputs)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        return self.scale * self.features(r_in, r_out_prev)


class Shifted(Adaptor, kind="shifted"):
    """The other."""

    def __init__(self, dims: FeatureDims, inputs: tuple[str, ...] = ("r_out_prev",)) -> None:
        super().__init__(dims, inputs)
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(
        self, r_in: Tensor | None, r_out_prev: Tensor | None, t_emb: Tensor | None, text_emb: Tensor | None
    ) -> Tensor:
        return self.shift + self.features(r_in, r_out_prev)


@pytest.mark.parametrize("cls", [Scaled, Shifted])
def test_two_adaptors_in_one_file_are_saved_and_loaded(cls: type[Adaptor], tmp_path: Path) -> None:
    saved = cls(FeatureDims(4, 4, 8, 0))
    with torch.no_grad():
        next(saved.parameters()).fill_(2.5)
    point = OperatingPoint("t", "0" * 12, "3,4", "clock2", "dpm++", 8, 3.0, 32)
    save_adaptor(tmp_path, saved, point)
    loaded, _ = load_adaptor(tmp_path)
    features = torch.randn(1, 4, 2, 2)
    assert type(loaded) is cls and torch.equal(loaded(None, features, None, None), saved(None, features, None, None))


def test_a_class_without_a_kind_or_with_anothers_is_refused() -> None:
    with pytest.raises(UserError, match="has no kind: write class Nameless"):

        class Nameless(Adaptor): ...

    with pytest.raises(UserError, match=r"kind='scaled', and so has .*Scaled: give one of them another kind"):

        class Again(Adaptor, kind="scaled"): ...


@pytest.mark.parametrize(
    ("trained", "at_hand", "refused"),
    [
        ({"name": "miniature", "tag": None}, {"name": "miniature", "tag": None}, False),
        ({"name": "miniature", "tag": None}, {"name": "ViT-g-14", "tag": "laion2b_s34b_b88k"}, True),
        ({"name": "ViT-g-14", "tag": "laion2b_s12b_b42k"}, {"name": "ViT-g-14", "tag": "laion2b_s34b_b88k"}, True),
        ({"name": "miniature", "tag": None}, None, True),
        (None, {"name": "miniature", "tag": None}, False),
    ],
)
def test_text_of_another_embedder_is_refused(
    trained: dict[str, str | None] | None, at_hand: dict[str, str | None] | None, refused: bool, tmp_path: Path
) -> None:
    """Two embedders' vectors have nothing in common: only an adaptor that reads no text may ignore which it is."""
    point = OperatingPoint("t", "0" * 12, "3,4", "clock2", "dpm++", 8, 3.0, 32)
    for inputs, wrong in ((("r_out_prev", "text_emb"), refused), (("r_out_prev",), False)):
        folder = tmp_path / str(len(inputs))
        save_adaptor(folder, ResNet(FeatureDims(4, 4, 8, 6), width=8, inputs=inputs), point, openclip=trained)
        with pytest.raises(UserError, match="reads text of") if wrong else nullcontext():
            check_text_embedder(folder, at_hand)
