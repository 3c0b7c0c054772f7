"""Sizes against the paper's, a start that equals the identity, and what a folder keeps and refuses."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from clockwork.adaptors import (
    Adaptor,
    Identity,
    ResNet,
    UNet,
    Widths,
    adaptor_hash,
    check_point,
    load_adaptor,
    save_adaptor,
)
from clockwork.operating_point import OperatingPoint

SD15 = Widths(r_in=320, r_out=640, t_emb=1280, text_emb=1024)
SMALL = Widths(r_in=8, r_out=12, t_emb=16, text_emb=10)
POINT = OperatingPoint("miniature", "abc", "2,3", "clock2", "dpm++", 8, 3.0, 32)


def features(size: tuple[int, int] = (9, 7)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((2, 8, *size), (2, 12, *size), (2, 16), (2, 10))
    r_in, r_out, t_emb, text = (torch.randn(s, generator=rng) for s in shapes)
    return r_in, r_out, t_emb, text


@pytest.mark.parametrize(
    ("adaptor", "millions"),
    [(ResNet, 13.86), (UNet, 151.87), (lambda widths: UNet(widths, 96, 2), 2.87)],
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
    with pytest.raises(ValueError, match="needs r_in or r_out_prev"):
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
        check_point(POINT, replace(POINT, steps=6, guidance=2.0))
    with pytest.raises(ValueError, match="trained for teacher miniature"):
        check_point(POINT, replace(POINT, teacher_hash="other"))
    with pytest.raises(FileNotFoundError, match="no adaptor folder"):
        load_adaptor(tmp_path)
