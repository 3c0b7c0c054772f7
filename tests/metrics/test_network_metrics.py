"""Metrics with networks of their own, of random weights, against reference packages or a second computation."""

import json
import re
from pathlib import Path

import lpips
import open_clip
import pytest
import timm
import torch
import torchvision
from open_clip.transform import image_transform
from PIL import Image
from torch import Tensor, nn
from torchmetrics.functional.image.lpips import _LPIPS
from transformers import BertConfig, BertModel, BertTokenizer, BitImageProcessor, Dinov2Config, Dinov2Model

from clockwork.data.image_io import write_image
from clockwork.metrics.base import Batch, measure
from clockwork.metrics.clip_score import open_clip_score
from clockwork.metrics.dinov2 import DINOv2, fd_dinov2
from clockwork.metrics.hpsv2 import hpsv2
from clockwork.metrics.image_reward import MEAN, STD, image_reward
from clockwork.metrics.lpips import alexnet_lpips

CAPTIONS = ["a red circle", "a blue square on the left", "red", "the circle on the square"]


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(256, (4, 3, 64, 64), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def test_lpips_is_torchmetrics(images: Tensor, tmp_path: Path) -> None:
    """Two implementations, of the authors and of torchmetrics, with one AlexNet from a file."""
    torch.manual_seed(0)
    alexnet = torchvision.models.alexnet(weights=None)
    weights = {name: weight for name, weight in alexnet.state_dict().items() if name.startswith("features.")}
    torch.save(weights, tmp_path / "alexnet.pth")
    metric = alexnet_lpips(str(tmp_path / "alexnet.pth"), device="cpu")
    other = _LPIPS(net="alex", pnet_rand=True)
    for name, weight in other.net.named_parameters():
        weight.data = weights[f"features.{name.split('.', 1)[1]}"]
    theirs = other(images / 127.5 - 1, images.flip(0) / 127.5 - 1).flatten()
    batch = Batch(images, teacher_images=images.flip(0))
    assert torch.allclose(metric.values(batch), theirs, rtol=1e-5) and theirs.min() > 0
    assert isinstance(metric.network, lpips.LPIPS) and metric.label.startswith("AlexNet ")
    assert measure([metric], [Batch(images, teacher_images=images)]) == {"lpips": 0}


def test_dinov2_from_a_folder(images: Tensor, tmp_path: Path) -> None:
    """The class token that transformers returns for its own processing of images; 0 from a set to itself."""
    torch.manual_seed(0)
    config = Dinov2Config(hidden_size=4, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    model = Dinov2Model(config).eval()
    model.save_pretrained(tmp_path / "dinov2")
    processor = BitImageProcessor(
        do_resize=False, do_center_crop=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    pixels = processor([pil(image) for image in images[:, :, :56, :56]], return_tensors="pt").pixel_values
    features = DINOv2(tmp_path / "dinov2", "cpu")(images[:, :, :56, :56])
    with torch.no_grad():
        assert torch.allclose(features, model(pixels).pooler_output, atol=1e-5)
    for number in range(6):
        write_image(tmp_path / "real" / f"{number}.png", images[number % 4].roll(number, 1))
    real = torch.stack([images[number % 4].roll(number, 1) for number in range(6)])
    metric = fd_dinov2(str(tmp_path / "real"), str(tmp_path / "dinov2"), cache=str(tmp_path / "cache"), device="cpu")
    assert metric([real]) == pytest.approx(0, abs=1e-4) and metric([images.flip(2)]) > 1e-4
    assert re.match(r"FD-DINOv2 DINOv2 dinov2 [0-9a-f]{12} at 224, 6 images", metric.description)


def test_hpsv2_is_a_cosine_of_open_clip(images: Tensor, tmp_path: Path) -> None:
    """A small network of open_clip with weights from a file in the authors' format, and open_clip's own processing."""
    tower = {"width": 64, "layers": 1}
    sizes = {"embed_dim": 8, "vision_cfg": {**tower, "image_size": 64, "patch_size": 32}}
    (tmp_path / "tiny.json").write_text(json.dumps({**sizes, "text_cfg": {**tower, "heads": 1}}))
    open_clip.add_model_config(tmp_path / "tiny.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny").eval()
    torch.save({"epoch": 1, "state_dict": model.state_dict()}, tmp_path / "HPS.pt")
    metric = hpsv2(str(tmp_path / "HPS.pt"), "tiny", device="cpu")
    preprocess = image_transform(64, is_train=False)
    with torch.no_grad():
        output = model(torch.stack([preprocess(pil(image)) for image in images]), open_clip.tokenize(CAPTIONS))
    assert torch.allclose(metric.values(Batch(images, CAPTIONS)), (output[0] * output[1]).sum(-1), atol=1e-5)
    assert re.match(r"HPSv2 tiny HPS [0-9a-f]{12}$", metric.description)


def reward_folder(folder: Path) -> tuple[nn.Module, nn.Module, nn.Sequential]:
    """Writes ImageReward's files for a small network; timm's ViT and BERT have the same layers."""
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = dict(zip(names, (5 + len(words), 128, 96, 2, 4), strict=True))
    config |= {"max_position_embeddings": 64, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}  # type: ignore[dict-item]
    (folder / "med_config.json").write_text(json.dumps(config))
    sizes = {"img_size": 32, "embed_dim": 128, "depth": 2, "num_heads": 2}
    vit = timm.create_model("vit_base_patch16_224", num_classes=0, global_pool="", **sizes).eval()
    bert = BertModel(BertConfig(**config, is_decoder=True, add_cross_attention=True), add_pooling_layer=False).eval()
    head = nn.Sequential(nn.Linear(128, 8), nn.Dropout(), nn.Linear(8, 4), nn.Linear(4, 1)).eval()
    for parameter in (*vit.parameters(), *bert.parameters(), *head.parameters()):
        nn.init.normal_(parameter, std=0.2)
    bert.embeddings.token_type_embeddings.weight.data.zero_()  # which BLIP has none of
    parts = {"blip.visual_encoder.": vit, "blip.text_encoder.": bert, "mlp.layers.": head}
    weights = {f"{prefix}{name}": w for prefix, part in parts.items() for name, w in part.state_dict().items()}
    torch.save({name: w for name, w in weights.items() if "token_type" not in name}, folder / "ImageReward.pt")
    return vit, bert, head


def test_image_reward_from_its_files(images: Tensor, tmp_path: Path) -> None:
    """The authors' computation: BERT's encoder, whose tokens all see each other, attends to a ViT's patches."""
    torch.manual_seed(0)
    vit, bert, head = reward_folder(tmp_path / "reward")
    metric = image_reward(str(tmp_path / "reward"), device="cpu")
    preprocess = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(32, torchvision.transforms.InterpolationMode.BICUBIC),
            image_transform(32, False),
        ]
    )
    tokens = BertTokenizer.from_pretrained(tmp_path / "reward")(
        CAPTIONS, padding="max_length", max_length=35, return_tensors="pt"
    )
    with torch.no_grad():
        patches = vit.forward_features(torch.stack([preprocess(pil(image)) for image in images]))  # type: ignore[operator]
        mask = tokens.attention_mask.bool()[:, None, None].expand(-1, 1, 35, 35)  # not a decoder's
        text = bert(tokens.input_ids, mask, encoder_hidden_states=patches).last_hidden_state[:, 0]
        rewards = (head(text).flatten() - MEAN) / STD
    assert torch.allclose(metric.values(Batch(images, CAPTIONS)), rewards, atol=1e-4) and rewards.std() > 0.01


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda nowhere: hpsv2(f"{nowhere}/HPS.pt"), r"hf download xswu/HPSv2 .*--local-dir .*nowhere"),
        (
            lambda nowhere: image_reward(nowhere),
            r"no ImageReward\.pt and med_config\.json and vocab\.txt in .*hf download",
        ),
        (lambda nowhere: open_clip_score(clip="ViT-g-14"), r"hf download laion/CLIP-ViT-g-14-laion2B-s34B-b88K"),
        (lambda nowhere: open_clip_score(clip="ViT-g-14", clip_tag="x"), "open_clip has no weights 'x' of 'ViT-g-14'"),
        (
            lambda nowhere: open_clip_score(clip=f"local-dir:{nowhere}", clip_tag=None),
            "no open_clip model at .*nowhere",
        ),
        (lambda nowhere: fd_dinov2(nowhere, nowhere), r"hf download facebook/dinov2-large --local-dir .*nowhere"),
    ],
)
def test_absent_weights_are_named_with_where_to_get_them(
    create: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # which a machine may not be
    with pytest.raises(FileNotFoundError, match=message):
        create(str(tmp_path / "nowhere"))  # type: ignore[operator]


def test_absent_alexnet_is_downloaded_or_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(url: str, *_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(FileNotFoundError, match=r"fetch https://.*alexnet.*metrics\.lpips_weights"):
        alexnet_lpips(str(tmp_path / "alexnet.pth"))
