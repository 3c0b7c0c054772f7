"""The configs of the commands."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from omegaconf import DictConfig

from clockwork.experiments.schemas.editing import Benchmark, EditMetrics, EditorDifference, Inversion, Phase
from clockwork.experiments.schemas.groups import Adaptor, Images, Logger, Metrics, Prompts, Rival
from clockwork.experiments.schemas.point import (
    Difference,
    Menu,
    OperatingPoint,
    WithTeacher,
    adaptor_fits,
    calibrated_schedules_fit,
    clock_fits,
    schedule_fits,
    schedule_is_default,
)
from clockwork.experiments.schemas.rules import ABSENT, Bounds
from clockwork.experiments.schemas.tables import Scale, Table
from clockwork.experiments.schemas.tools import (
    Bench,
    Drift,
    Evidence,
    Export,
    GPUCheck,
    Miniature,
    Perturb,
    RandomTeacher,
    Report,
    Score,
    Tables,
)
from clockwork.experiments.schemas.training import Callbacks, Data, LRScheduler, Objective, Optimizer, Trainer
from clockwork.experiments.schemas.types import (
    NOT_EMPTY,
    BatchSize,
    Count,
    CountOrNone,
    CutText,
    Decay,
    EditSolver,
    Folder,
    Guidance,
    GuidanceRange,
    Name,
    NewImage,
    NotNegative,
    Positive,
    ScheduleText,
    Seed,
    Seeds,
    Share,
    StepRange,
    Steps,
    Text,
)


@dataclass(kw_only=True)
class Train(OperatingPoint):
    adaptor: Adaptor
    prompts: Prompts
    images: Images
    data: Data
    logger: Logger
    optimizer: Optimizer
    lr_scheduler: LRScheduler
    objective: Objective
    prompts_per_epoch: Count
    repeats_per_epoch: Count
    batch_size: BatchSize
    generation_batch_size: BatchSize
    max_examples_gb: Positive
    examples_device: Literal["auto", "device", "cpu"]
    rollout: Literal["teacher", "adaptor"]
    base: Text | None
    learning_rate: Positive
    loss: Literal["features", "latents"]
    guided: NotNegative
    output_loss: NotNegative
    decay: bool
    epochs: Count
    ema: Decay | None
    val_prompts: CountOrNone
    keep: Literal["last", "best"]
    patience: Count | None
    samples_every: CountOrNone
    name: Name | None
    teachers: Folder
    scales: GuidanceRange | None
    step_counts: StepRange | None
    data_name: Name
    objective_name: Name
    adaptor_name: Name
    output: Folder
    trainer: Trainer
    callbacks: Callbacks
    start: Steps = ABSENT
    end: Steps = ABSENT
    clocked: Share = ABSENT

    @staticmethod
    def relation(values: dict[str, Any]) -> str | None:
        if values["objective"]:
            return clock_fits(values) if values.get("clocked") else schedule_is_default(values)
        return _roll_outs_fit(values) or schedule_fits(values)


def _roll_outs_fit(values: dict[str, Any]) -> str | None:
    """Images have no roll-outs, and a loss on final latents is of the adaptor's roll-out and of nothing else."""
    if values["data_name"] == "noised" and (values["rollout"] == "adaptor" or values["loss"] == "latents"):
        return "data=noised has no roll-outs: use data=trajectories, or rollout=teacher and loss=features"
    if values["loss"] == "latents" and (values["rollout"] == "adaptor" or values["output_loss"]):
        return "loss=latents trains on the adaptor's roll-out and its end alone: leave out rollout and output_loss"
    return None


@dataclass(kw_only=True)
class Calibrate(OperatingPoint):
    adaptor: Adaptor
    adaptor_name: Name
    prompts: Prompts
    logger: Logger
    count: Count
    negatives: Annotated[list[str], NOT_EMPTY]
    joint: bool
    positive_only: bool
    guided_weight: NotNegative
    held_out_every: Annotated[int, Bounds(least=2)]
    batch_size: BatchSize
    output: Folder
    what: Literal["adaptor", "menu"]
    menu: Menu
    relation = staticmethod(calibrated_schedules_fit)


@dataclass(kw_only=True)
class Evaluate(OperatingPoint):
    adaptor: Adaptor
    adaptor_name: Name
    rival: Rival
    rival_name: Name
    adaptors: Text
    prompts: Prompts
    metrics: Metrics
    logger: Logger
    scale: Scale
    batch_size: BatchSize
    keep_images: Literal["all", "teacher", "sample", "none"]
    seeds: Seeds | None
    fits: Seeds | None
    output: Folder
    points: Annotated[list[Difference], NOT_EMPTY] | None
    table: Table = ABSENT
    figure: Table = ABSENT

    @staticmethod
    def relation(values: dict[str, Any]) -> str | None:
        chosen = {**values, "adaptor": values["adaptor_name"], "rival": values["rival_name"]}
        return next((p for point in values["points"] or [{}] if (p := adaptor_fits({**chosen, **point}, point))), None)


@dataclass(kw_only=True)
class EvaluateTable(Evaluate):
    """With a table or figure: its teachers bring prompts and metrics, and their configs are checked by themselves."""

    prompts: Any
    metrics: Any


@dataclass(kw_only=True)
class Generate(OperatingPoint):
    adaptor: Adaptor
    adaptor_name: Name
    adaptors: Text
    prompt: Text
    count: Annotated[int, Bounds(least=1, most=1000)]  # rows of one image
    output: NewImage
    relation = staticmethod(schedule_fits)


@dataclass(kw_only=True)
class Edit(WithTeacher):
    cut: CutText
    schedule: ScheduleText
    solver: EditSolver
    steps: Steps | None
    guidance: Guidance
    teacher_name: Name
    seed: Seed
    adaptor: Adaptor
    adaptor_name: Name
    adaptors: Text
    edit_metrics: EditMetrics
    logger: Logger
    image: Text | None
    resize: bool
    source: Text | None
    target: Text | None
    inversion: Inversion
    generation: Phase
    negative: str
    tau_f: Share
    tau_a: Share
    keep_source: bool
    replay: bool
    latents: Folder | None
    output: Folder
    points: Annotated[list[EditorDifference], NOT_EMPTY]
    benchmark: Benchmark = ABSENT
    name: Name = ABSENT


def schema_of(config: str, composed: DictConfig) -> type:
    """Returns the dataclass that describes a command's composed config."""
    is_table = config == "evaluate" and ("table" in composed or "figure" in composed)
    return EvaluateTable if is_table else COMMANDS[config]


COMMANDS: dict[str, type] = {
    "train": Train,
    "calibrate": Calibrate,
    "evaluate": Evaluate,
    "generate": Generate,
    "edit": Edit,
    "export": Export,
    "bench": Bench,
    "drift": Drift,
    "perturb": Perturb,
    "score": Score,
    "report": Report,
    "tables": Tables,
    "evidence": Evidence,
    "gpu_check": GPUCheck,
    "random_teacher": RandomTeacher,
    "miniature": Miniature,
}
