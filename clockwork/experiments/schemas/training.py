"""The config groups of training: data, optimiser, learning rate, objective, Lightning's trainer and callbacks."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from clockwork.experiments.schemas.groups import Foreign
from clockwork.experiments.schemas.rules import ABSENT, Bounds, Open
from clockwork.experiments.schemas.types import (
    Count,
    CountOrNone,
    Decay,
    Devices,
    NotNegative,
    Positive,
    Text,
)


@dataclass(kw_only=True)
class Examples(Open):
    _target_: Text
    rollout: Text = ABSENT


@dataclass(kw_only=True)
class Data:
    source: Any  # prompts or images, which are checked as such
    examples: Examples
    latents: Foreign


@dataclass(kw_only=True)
class AnyOptimizer(Open):
    _target_: Text
    lr: Positive


@dataclass(kw_only=True)
class Adam:
    _target_: Literal["torch.optim.Adam", "torch.optim.AdamW"]
    lr: Positive
    betas: list[Annotated[float, Bounds(least=0, below=1)]] = ABSENT
    eps: NotNegative = ABSENT
    weight_decay: NotNegative = ABSENT
    amsgrad: bool = ABSENT
    foreach: bool | None = ABSENT
    maximize: bool = ABSENT
    capturable: bool = ABSENT
    differentiable: bool = ABSENT
    fused: bool | None = ABSENT


@dataclass(kw_only=True)
class Cosine:
    _target_: Literal["torch.optim.lr_scheduler.CosineAnnealingLR"]
    T_max: Count
    eta_min: NotNegative = ABSENT


@dataclass(kw_only=True)
class Linear:
    _target_: Literal["torch.optim.lr_scheduler.LinearLR"]
    start_factor: Annotated[float, Bounds(above=0, most=1)]
    end_factor: Annotated[float, Bounds(least=0, most=1)]
    total_iters: Count


@dataclass(kw_only=True)
class Recovery:
    _target_: Literal["clockwork.training.objectives.features.FeatureDistillation"]
    outputs: NotNegative
    features: NotNegative


@dataclass(kw_only=True)
class Stage:
    _target_: Literal[
        "clockwork.training.objectives.guidance.GuidanceDistillation",
        "clockwork.training.objectives.progressive.ProgressiveDistillation",
    ]


@dataclass(kw_only=True)
class Consistency:
    _target_: Literal["clockwork.training.objectives.consistency.ConsistencyDistillation"]
    skip: Count
    huber: Positive
    decay: Decay


Callbacks = dict[str, Foreign]
Optimizer = Adam | AnyOptimizer
LRScheduler = Cosine | Linear | Foreign | None
Objective = Recovery | Stage | Consistency | Foreign | None


@dataclass(kw_only=True)
class Trainer:
    """Options of Lightning's Trainer, without those that `fit` sets itself."""

    devices: Devices
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    gradient_clip_val: Positive | None
    num_nodes: Devices = ABSENT
    strategy: Text = ABSENT
    accumulate_grad_batches: Count = ABSENT
    check_val_every_n_epoch: Count = ABSENT
    deterministic: bool | Literal["warn"] = ABSENT
    benchmark: bool = ABSENT
    detect_anomaly: bool = ABSENT
    enable_model_summary: bool = ABSENT
    enable_progress_bar: bool = ABSENT
    fast_dev_run: bool | Count = ABSENT
    gradient_clip_algorithm: Literal["norm", "value"] = ABSENT
    limit_train_batches: Annotated[float, Bounds(above=0)] = ABSENT
    log_every_n_steps: CountOrNone = ABSENT
    max_steps: Annotated[int, Bounds(least=-1, most=10**9)] = ABSENT
    max_time: Text = ABSENT
    min_epochs: Count = ABSENT
    min_steps: Count = ABSENT
    num_sanity_val_steps: Annotated[int, Bounds(least=-1)] = ABSENT
    overfit_batches: Annotated[float, Bounds(least=0)] = ABSENT
    profiler: Literal["simple", "advanced", "pytorch"] = ABSENT
    sync_batchnorm: bool = ABSENT
