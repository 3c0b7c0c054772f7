"""The config groups that several commands have: adaptor, prompts, images, metrics, logger."""

from dataclasses import dataclass
from typing import Annotated, Literal

from clockwork.experiments.schemas.rules import ABSENT, Bounds, Open
from clockwork.experiments.schemas.types import (
    NOT_EMPTY,
    Count,
    CountOrNone,
    Device,
    Folder,
    Rendered,
    Side,
    Split,
    Text,
    Width,
)

Inputs = Annotated[list[Literal["r_in", "r_out_prev", "t_emb", "text_emb"]], NOT_EMPTY]
Order = Literal[1, 2]
Terms = Annotated[list[Literal["r_out_prev", "r_in", "r_in_change", "r_out_trend", "r_in_trend"]], NOT_EMPTY]


@dataclass(kw_only=True)
class AnyAdaptor(Open):
    """An adaptor class of the user's own."""

    _target_: Text
    inputs: Inputs = ABSENT


@dataclass(kw_only=True)
class Foreign(Open):
    """A group that builds something of the user's own."""

    _target_: Text


@dataclass(kw_only=True)
class Identity:
    _target_: Literal["clockwork.adaptors.Identity"]


@dataclass(kw_only=True)
class Taylor:
    _target_: Literal["clockwork.adaptors.Taylor"]
    order: Order


@dataclass(kw_only=True)
class Hermite:
    _target_: Literal["clockwork.adaptors.Hermite"]
    order: Order
    sigma: Annotated[float, Bounds(above=0, below=1)]


@dataclass(kw_only=True)
class TrainedAdaptor:
    _target_: Literal["clockwork.adaptors.ResNet", "clockwork.adaptors.UNet"]
    width: Width
    blocks: Annotated[int, Bounds(least=1, most=1000)]
    inputs: Inputs


@dataclass(kw_only=True)
class LinearAdaptor:
    _target_: Literal["clockwork.adaptors.Linear"]
    terms: Terms
    rank: Width | None


@dataclass(kw_only=True)
class AdaptorFolder:
    """`folder` has a path, `none` has no keys."""

    path: Text = ABSENT


@dataclass(kw_only=True)
class NoRival:
    """`none` has no keys."""


@dataclass(kw_only=True)
class DeepCache:
    _target_: Literal["clockwork.rivals.deepcache.DeepCache"]
    interval: Count
    branch: CountOrNone


@dataclass(kw_only=True)
class ToMe:
    _target_: Literal["clockwork.rivals.tome.ToMe"]
    ratio: Annotated[float, Bounds(least=0, most=0.75)]
    max_downsample: Literal[1, 2, 4, 8]


@dataclass(kw_only=True)
class AttentionBroadcast:
    _target_: Literal["clockwork.rivals.broadcast.AttentionBroadcast"]
    spatial: Count | None
    cross: Count | None
    above: int
    below: int


@dataclass(kw_only=True)
class FasterCache:
    _target_: Literal["clockwork.rivals.fastercache.FasterCache"]
    interval: Count
    below: int


Rival = NoRival | DeepCache | ToMe | AttentionBroadcast | FasterCache | Foreign
Adaptor = Identity | Taylor | Hermite | TrainedAdaptor | LinearAdaptor | AdaptorFolder | AnyAdaptor


@dataclass(kw_only=True)
class Captions:
    _target_: Literal["clockwork.data.prompts.captions"]
    path: Text
    count: Count | None = ABSENT
    column: Text | None = ABSENT
    sample: int | None = ABSENT
    category: Text | None = ABSENT
    quotes: bool | None = ABSENT


@dataclass(kw_only=True)
class SceneCaptions:
    _target_: Literal["clockwork.miniature.prompts.scene_prompts"]
    split: Split
    count: Rendered


@dataclass(kw_only=True)
class ImageFolder:
    _target_: Literal["clockwork.data.captioned_images.folder"]
    path: Text
    count: Count | None
    column: Text | None
    outside: bool


@dataclass(kw_only=True)
class SceneImages:
    _target_: Literal["clockwork.miniature.prompts.scene_images"]
    split: Split
    count: Rendered


Prompts = Captions | SceneCaptions | Foreign
Images = ImageFolder | SceneImages | Foreign


@dataclass(kw_only=True)
class MetricEntry(Open):
    """A metric, by its class or a function that creates it."""

    _target_: Text
    name: Text
    when: bool | Text | None = ABSENT


MetricEntries = Annotated[list[MetricEntry], NOT_EMPTY]


@dataclass(kw_only=True)
class AnyMetrics(Open):
    """Metrics, with whatever other values they share."""

    latency: bool
    list: MetricEntries
    device: Device = ABSENT


@dataclass(kw_only=True)
class MiniatureMetrics:
    reference: Annotated[int, Bounds(least=2, most=10**6)]
    cache: Folder
    device: Device
    latency: bool
    list: MetricEntries


@dataclass(kw_only=True)
class PaperMetrics:
    reference: Text
    inception: Text
    sha256: Text
    clip: Text
    clip_tag: Text | None
    size: Side | None
    cache: Folder
    device: Device
    latency: bool
    list: MetricEntries


@dataclass(kw_only=True)
class MoreMetrics(PaperMetrics):
    """The paper's, and those of networks that may be left out."""

    lpips_weights: Text | None
    cmmd_clip: Text | None
    cmmd_clip_tag: Text | None
    dinov2: Text | None
    image_reward: Text | None
    hpsv2_weights: Text | None


Metrics = MiniatureMetrics | PaperMetrics | MoreMetrics | AnyMetrics


@dataclass(kw_only=True)
class Logger:
    name: Literal["csv", "none", "wandb"]
    project: Text = ABSENT
    group: Text | None = ABSENT
