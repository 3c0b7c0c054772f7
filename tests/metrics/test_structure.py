"""Structure distance against its formula, a real DINO folder, and what the miniature's sees."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor

from clockwork.metrics.base import Batch, measure
from clockwork.metrics.structure import Structure, dino_distance, self_similarity
from clockwork.miniature import metrics
from clockwork.miniature.editing import scene_pairs
from clockwork.teachers import Teacher


def mean_distance(structure: Structure, pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    return measure([structure], (Batch(image, source_images=source) for image, source in pairs))[structure.name]


def test_structure_distance_by_hand() -> None:
    """Cosines of patches: blind to length, and 0 apart only where all angles are the same."""
    right, scaled = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[5.0, 0.0], [0.0, 0.1]]])
    slanted = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    assert torch.equal(self_similarity(right)[0], torch.eye(2))
    assert float(self_similarity(slanted)[0, 0, 1]) == pytest.approx(2**-0.5)
    distance = Structure("given", lambda images: images)
    assert mean_distance(distance, [(right, scaled)]) == 0
    assert mean_distance(distance, [(right, slanted)]) == pytest.approx(0.5 / 2)  # two of four cosines differ by √½
    assert mean_distance(distance, [(right, slanted), (right, right)]) == pytest.approx(0.5 / 4)


def test_dino_from_a_folder(tmp_path: Path) -> None:
    """Random weights in timm's format; the keys again from the layers before, by matrix product."""
    torch.manual_seed(0)
    about = {"img_size": 32, "embed_dim": 48, "depth": 3, "num_heads": 3}
    vit = timm.create_model("vit_small_patch8_224.dino", num_classes=0, **about).eval()
    save_for_hf(vit, str(tmp_path / "dino"), model_args=about, safe_serialization=True)
    structure = dino_distance(str(tmp_path / "dino"), "cpu")
    assert structure.label == "dino 32"
    images = torch.randint(0, 255, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        tokens = vit._pos_embed(vit.patch_embed((images / 255 - mean) / std))
        tokens = vit.blocks[-1].norm1(vit.blocks[1](vit.blocks[0](vit.norm_pre(tokens))))
        qkv = vit.blocks[-1].attn.qkv
        keys = tokens @ qkv.weight[48:96].T + qkv.bias[48:96]
    assert keys.shape == (2, 17, 48)  # 16 patches and the class token
    assert torch.allclose(structure.features(images), keys, atol=1e-4)
    expected = (self_similarity(keys[:1]) - self_similarity(keys[1:])).square().mean()
    assert mean_distance(structure, [(images[:1], images[1:])]) == pytest.approx(float(expected), rel=1e-4)
    assert structure.features(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape == (1, 17, 48)
    with pytest.raises(FileNotFoundError, match="not a timm folder"):
        dino_distance(str(tmp_path / "nowhere"))


def test_small_structure_sees_layout_more_than_colour(teacher: Teacher) -> None:
    """The stand-in: a recoloured scene is nearer to its source than a mirrored one."""
    structure = metrics.structure()
    pairs = scene_pairs(teacher, 24)
    recoloured = mean_distance(structure, [(p.image()[None], p.ground_truth()[None]) for p in pairs if p.ground_truth])
    mirrored = mean_distance(structure, [(p.image()[None], p.image().flip(1, 2)[None]) for p in pairs])
    assert 0 < recoloured < mirrored
