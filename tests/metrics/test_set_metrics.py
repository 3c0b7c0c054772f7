"""Metrics of sets of features against their reference packages and formulas, on what the small CLIP sees."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from clockwork.errors import UserError
from clockwork.metrics.base import Batch, Metric, measure
from clockwork.metrics.clip_score import CLIPImages
from clockwork.metrics.cmmd import CMMD, SCALE, SIGMA
from clockwork.metrics.fid import FID
from clockwork.metrics.kid import KID
from clockwork.metrics.mmd import unbiased_mmd
from clockwork.metrics.prdc import FIGURES, NEAREST
from clockwork.metrics.reference import Reference
from clockwork.miniature import scenes
from clockwork.miniature.metrics import clip_score, fid, kid, prdc
from clockwork.miniature.teacher import small_clip


def rendered(count: int, split: str, fade: float = 0.0) -> Tensor:
    """8-bit scenes, some shade nearer to grey."""
    images = scenes.render_batch(split, 0, count)[1] * (1 - fade)  # type: ignore[arg-type]
    return ((images + 1) * 127.5).round().to(torch.uint8)


@pytest.fixture(scope="module")
def reference() -> Reference:
    real = rendered(150, "train")
    return Reference(CLIPImages(small_clip()), "small CLIP, 150 scenes", lambda: real.split(40))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return rendered(120, "test", fade=0.3)


@pytest.fixture(scope="module")
def features(images: Tensor) -> Tensor:
    return small_clip().encode_image(images)


def value(metric: Metric, images: Tensor) -> float:
    return measure([metric], map(Batch, images.split(50)))[metric.name]


def test_kid_is_torchmetrics_over_all_pairs(reference: Reference, images: Tensor, features: Tensor) -> None:
    """torchmetrics' estimate needs sets of equal size; other sizes are compared with the definition."""
    assert unbiased_mmd(features, reference.features[:120], KID.kernel) == pytest.approx(
        float(poly_mmd(reference.features[:120].double(), features.double())), rel=1e-9
    )
    a, b = features.double(), reference.features.double()
    gram = {name: (x @ y.T / 96 + 1) ** 3 for name, x, y in (("aa", a, a), ("bb", b, b), ("ab", a, b))}
    within = [(g.sum() - g.diagonal().sum()) / (len(g) * (len(g) - 1)) for g in (gram["aa"], gram["bb"])]
    assert value(KID(reference), images) == pytest.approx(float(sum(within) - 2 * gram["ab"].mean()), rel=1e-9)


def test_kid_is_unbiased_at_every_count(reference: Reference, features: Tensor) -> None:
    """The mean over all subsets is the estimate of the whole, as for a U-statistic; equal sets give about 0,
    on either side of it."""
    a, b = features[:6], reference.features[:5]
    subsets = [unbiased_mmd(a[list(i)], b[list(j)], KID.kernel) for i in triples(6) for j in triples(5)]
    assert np.mean(subsets) == pytest.approx(unbiased_mmd(a, b, KID.kernel), rel=1e-9)
    equal = [unbiased_mmd(a[list(i)], a[[k for k in range(6) if k not in i]], KID.kernel) for i in triples(6)]
    assert min(equal) < 0 < max(equal)


def triples(count: int) -> list[tuple[int, ...]]:
    return list(combinations(range(count), 3))


def test_cmmd_is_the_papers_but_for_its_bias(reference: Reference, images: Tensor, features: Tensor) -> None:
    """The authors' code: γ = 1 / 2σ², and means over all pairs, of an image with itself included, whose kernel is 1."""
    a, b = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (features, reference.features))
    gamma = 1 / (2 * SIGMA**2)
    kxx, kyy, kxy = (torch.exp(-gamma * torch.cdist(x, y) ** 2).mean() for x, y in ((a, a), (b, b), (a, b)))
    n, m = len(a), len(b)
    unbiased = (kxx * n - 1) / (n - 1) + (kyy * m - 1) / (m - 1) - 2 * kxy
    assert value(CMMD(reference), images) == pytest.approx(SCALE * float(unbiased), rel=1e-6)


@pytest.mark.parametrize("figure", FIGURES)
def test_neighbours_are_prdcs(figure: str, reference: Reference, images: Tensor, features: Tensor) -> None:
    expected = compute_prdc(reference.features.double().numpy(), features.double().numpy(), NEAREST)[figure]
    assert 0 < expected < 3
    assert value(FIGURES[figure](reference), images) == pytest.approx(expected, abs=1e-9)


def test_metrics_of_one_network_share_its_pass(tmp_path: Path, images: Tensor) -> None:
    """The small CLIP sees every image once, whatever the number of metrics; a reference is rendered once, too."""
    files = {"reference": 120, "cache": str(tmp_path)}
    shared = [kid(**files), *(prdc(f"{figure}_miniature", figure, **files) for figure in FIGURES)]  # type: ignore[arg-type]
    metrics: list[Metric] = [fid(**files), clip_score(), *shared]  # type: ignore[arg-type]
    assert len({id(metric.reference) for metric in metrics if hasattr(metric, "reference")}) == 1
    passes: list[int] = []
    hook = small_clip().module.visual.register_forward_hook(lambda *call: passes.append(len(call[1][0])))
    try:
        together = measure(metrics, [Batch(part, captions=["a circle"] * len(part)) for part in images.split(50)])
    finally:
        hook.remove()
    assert passes == [50, 50, 20]
    alone = {m.name: measure([m], [Batch(images, captions=["a circle"] * 120)])[m.name] for m in metrics}
    assert together == pytest.approx(alone, rel=1e-6)


def test_the_cache_of_a_reference(reference: Reference, tmp_path: Path) -> None:
    """Features are computed once, and not for another reference."""
    first = Reference(reference.model, "one", reference.images, cache=tmp_path)
    again = Reference(lambda images: images, "one", lambda: [], cache=tmp_path)  # would fail if it computed
    assert torch.equal(first.features, again.features) and FID(first).identity == FID(again).identity
    file, other = first.cache_file("features"), Reference(reference.model, "two", reference.images, cache=tmp_path)
    copy = other.cache_file("features")
    assert file is not None and copy is not None
    copy.write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="remove it"):
        other.features  # noqa: B018


def test_too_few_images_are_refused(reference: Reference, images: Tensor) -> None:
    few = Reference(reference.model, "few", lambda: [images[:6]])
    with pytest.raises(UserError, match="the reference has 6 images: precision needs at least 7"):
        FIGURES["precision"](few)
    with pytest.raises(UserError, match="recall needs at least 7 images, not 6"):
        value(FIGURES["recall"](reference), images[:6])
    with pytest.raises(UserError, match="kid needs at least 2 images, not 1"):
        value(KID(few), images[:1])
