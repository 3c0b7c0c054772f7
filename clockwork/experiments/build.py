"""From a config to the live parts it names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any, cast

from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from clockwork.adaptors import (
    Adaptor,
    FeatureDims,
    adaptor_hash,
    check_adaptor,
    check_teacher,
    check_text_embedder,
    fetch,
    is_hub_name,
    load_adaptor,
    warn_if_mismatched,
)
from clockwork.data.prompts import Prompt
from clockwork.editing.edit import Editor
from clockwork.errors import MissingFileError, UserError
from clockwork.experiments import configs
from clockwork.experiments.command import missing_value
from clockwork.experiments.run_dir import adaptor_folder
from clockwork.flops.editing import generation_steps
from clockwork.metrics.base import Metric
from clockwork.pipeline.enable import enable
from clockwork.rivals.base import Rival
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.sampling.solvers import make_solver
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet


def make_sampler(cfg: DictConfig, teacher: Teacher, adaptor: Adaptor | None = None, name: str = "none") -> Sampler:
    """The config's operating point, with an adaptor if there is one."""
    split = SplitUNet(teacher.unet, str(cfg.cut))
    if adaptor is not None and adaptor.point is not None:  # before the sizes of its features: this says more
        check_teacher(adaptor.point, teacher.name, teacher.hash, str(split.cut))
    schedule = Schedule.parse(str(cfg.schedule)) if adaptor is not None else Schedule()
    return Sampler(teacher, split, schedule, cfg.solver, cfg.steps, cfg.guidance, adaptor, name)


def make_metrics(cfg: DictConfig) -> list[Metric]:
    """Creates the metrics of a config.

    Args:
        cfg: A config group with a `list` of metrics, each of which may have a condition `when`. The other values of the
            group are passed to the metrics that have an argument of that name.

    Returns:
        The metrics whose condition is neither false nor null.
    """
    metrics = []
    for overrides in cfg.list:
        if overrides.get("when", True):
            accepted = signature(get_object(overrides._target_)).parameters
            shared = {key: value for key, value in cfg.items() if key in accepted}
            metrics.append(instantiate({**shared, **{key: value for key, value in overrides.items() if key != "when"}}))
    return metrics


def require_values(cfg: DictConfig, *keys: str) -> None:
    """Raises a UserError for the first value without default (`???`) below the keys."""
    for key in keys:
        below = [] if not OmegaConf.is_config(cfg._get_node(key)) else sorted(OmegaConf.missing_keys(cfg[key]))
        for missing in [key] if OmegaConf.is_missing(cfg, key) else below:
            raise UserError(missing_value(missing))


def counted_prompts(cfg: DictConfig) -> Sequence[Prompt]:
    """The prompts of a config's source; a UserError if they are fewer than its `count`."""
    require_values(cfg, "prompts")
    prompts: Sequence[Prompt] = instantiate(cfg.prompts)
    if len(prompts) < cfg.count:
        raise UserError(
            f"count={cfg.count} is more than the {len(prompts)} captions: pass count={len(prompts)}, or more captions"
        )
    return prompts


def at_difference(cfg: DictConfig, difference: Mapping[str, Any]) -> tuple[str, DictConfig]:
    """The name or folder of the adaptor, and the config, with a sweep's difference."""
    rest = {key: value for key, value in difference.items() if key not in ("adaptor", "rival")}
    name = str(difference.get("adaptor", cfg.adaptor_name))
    name = str(cfg.adaptor.path) if name == "folder" else name
    return name, cast(DictConfig, OmegaConf.merge(cfg, rest))


def make_rival(cfg: DictConfig, difference: Mapping[str, Any]) -> tuple[str, Rival | None]:
    """Creates the rival of the config's point with a sweep's difference.

    Args:
        cfg: The command's config. Its rival has the user's values; others have those of their yaml.
        difference: What the point has of its own.

    Returns:
        The rival's name, and the rival; None for `none`, and for commands that have none.

    Raises:
        UserError: If the name is that of no config, or the rival's package is not installed.
    """
    chosen = cfg.get("rival_name", "none")
    name = str(difference.get("rival", chosen))
    if name == "none":
        return name, None
    return name, cast(Rival, instantiate(cfg.rival if name == chosen else configs.rival_config(name)))


def adaptor_source(cfg: DictConfig, difference: Mapping[str, Any] | None = None) -> Path | None:
    """The folder of the config's trained adaptor, with a sweep's difference; None for `none` and for adaptors without
    weights. Reads no weights, so that one that is missing or damaged shows before a teacher is loaded."""
    name, cfg = at_difference(cfg, difference or {})
    if name == "none" or weightless_adaptor(cfg, name) is not None:
        return None
    folder = trained_folder(cfg, name)
    check_adaptor(folder)
    return folder


def weightless_adaptor(cfg: DictConfig, name: str) -> Callable[[FeatureDims], Adaptor] | None:
    """Finds out whether an adaptor has no weights, so that it needs no training.

    The module of the adaptor's class is imported, after which `load_adaptor` knows its kind.

    Args:
        cfg: The command's config. Its adaptor has the user's values; others have those of their yaml.
        name: The adaptor's name.

    Returns:
        What creates the adaptor from the dimensions of the features; None if it has weights, or the name is that of no
        config.
    """
    config = cfg.adaptor if name == cfg.adaptor_name else configs.adaptor_config(name)
    if config is None or "_target_" not in config:
        return None
    adaptor_class = instantiate({"_target_": config._target_, "_partial_": True}).func
    return None if getattr(adaptor_class, "has_weights", True) else cast(Callable[..., Adaptor], instantiate(config))


def build_sampler(cfg: DictConfig, teacher: Teacher, difference: Mapping[str, Any]) -> Sampler:
    """The config's point with a sweep's difference. Adaptor: `none`, one without weights or a trained one by its
    config's name, or a folder; checked against the point. A rival takes the place of `none`."""
    (rival_name, rival), (name, cfg) = make_rival(cfg, difference), at_difference(cfg, difference)
    if name == "none":
        return replace(make_sampler(cfg, teacher, name=rival_name), rival=rival)
    if (weightless := weightless_adaptor(cfg, name)) is not None:
        return make_sampler(cfg, teacher, weightless(feature_dims(teacher, str(cfg.cut))), name)
    folder = trained_folder(cfg, name)
    adaptor, trained = load_adaptor(folder)
    check_text_embedder(folder, None if teacher.text_embedder is None else teacher.text_embedder.config)
    from_elsewhere = Path(name).is_dir() or is_hub_name(name)
    trained_hash = adaptor_hash(adaptor)
    label = adaptor.kind if from_elsewhere else name
    sampler = make_sampler(cfg, teacher, adaptor.to(teacher.device, teacher.unet.dtype), label)
    sampler = replace(sampler, trained_hash=trained_hash)
    warn_if_mismatched(trained, sampler.point)
    return sampler if is_hub_name(name) else replace(sampler, folder=folder)


def trained_folder(cfg: DictConfig, name: str) -> Path:
    """Of an adaptor by its config's name, as trained at the config's point, by its folder or its name on the hub."""
    if Path(name).is_dir() or is_hub_name(name):
        return fetch(name)
    folder = adaptor_folder(cfg, name, cfg.adaptors) / "adaptor"
    if not folder.is_dir():
        calibrated = is_linear(configs.adaptor_config(name))
        command = configs.shell("calibrate" if calibrated else "train", training_overrides(cfg, name, cfg.adaptors))
        made_by = "calibrated" if calibrated else "trained"
        raise MissingFileError(f"no adaptor {name!r} {made_by} at this point: run `{command}`, or name a folder")
    return folder


def enabled_teacher(cfg: DictConfig) -> Teacher:
    """The config's teacher, whose pipeline has the config's solver, and Clockwork with its adaptor. An adaptor that is
    missing shows before the teacher is loaded."""
    folder = adaptor_source(cfg)
    teacher: Teacher = instantiate(cfg.teacher)
    weightless = weightless_adaptor(cfg, cfg.adaptor_name)
    adaptor = folder if weightless is None else weightless(feature_dims(teacher, str(cfg.cut)))
    teacher.pipe.scheduler = make_solver(cfg.solver, teacher.noise_schedule)
    enable(teacher.pipe, str(cfg.schedule), adaptor, str(cfg.cut))
    return teacher


def is_linear(config: DictConfig | None) -> bool:
    """Whether an adaptor's config is fitted by scripts/calibrate.py. Others are trained by scripts/train.py."""
    return config is not None and config.get("_target_") == "clockwork.adaptors.Linear"


def check_trainable(cfg: DictConfig) -> None:
    """Raises a UserError if the config's adaptor is not one that scripts/train.py trains."""
    if cfg.adaptor_name in ("none", "folder") or weightless_adaptor(cfg, cfg.adaptor_name) is not None:
        raise UserError(f"adaptor={cfg.adaptor_name} has nothing to train: use adaptor=resnet, unet or unet_light")
    if is_linear(cfg.adaptor) and cfg.base is None:
        command = configs.shell("calibrate", training_overrides(cfg, cfg.adaptor_name, cfg.output))
        raise UserError(
            f"adaptor={cfg.adaptor_name} is fitted in closed form: run `{command}`; to tune the result, pass "
            "base=<its folder>"
        )


def training_overrides(cfg: DictConfig, name: str, adaptors: str) -> list[str]:
    """What to pass to scripts/train.py or scripts/calibrate.py for an adaptor at the config's operating point: the
    point, what differs from the teacher's own values, and the folder of all adaptors."""
    defaults = configs.teacher_config(str(cfg.teacher_name)).teacher
    of_teacher = {
        f"teacher.{key}": cfg.teacher[key]
        for key in ("path", "guidance", "resolution", "openclip", "openclip_tag")
        if cfg.teacher[key] != defaults[key]
    }
    point = {key: cfg[key] for key in ("cut", "schedule", "solver", "steps")}
    guidance = {} if cfg.guidance == cfg.teacher.guidance else {"guidance": cfg.guidance}
    output = {} if adaptors == "outputs/adaptors" else {"output": adaptors}
    seed = {} if cfg.get("fit") is None else {"seed": cfg.fit}
    values = {"adaptor": name, "teacher": cfg.teacher_name, **of_teacher, **point, **guidance, **seed, **output}
    return [configs.override(key, value) for key, value in values.items()]


def chosen_editor(cfg: DictConfig, teacher: Teacher, difference: Mapping[str, Any]) -> Editor:
    """The config's editor with a sweep's difference, of `adaptor` and `schedule`, in both phases unless they have their
    own. Adaptors are looked for at the generation's point: inversion has none of its own."""
    of_inversion, of_generation = editor_differences(cfg, difference)
    generation = build_sampler(cfg, teacher, of_generation)
    inversion = generation if of_inversion == of_generation else build_sampler(cfg, teacher, of_inversion)
    looked_for = inversion.point
    inversion = replace(inversion, solver="ddim_inverse", steps=cfg.inversion.steps, guidance=1.0)
    if inversion.adaptor is not None and inversion.adaptor.has_weights:
        warn_if_mismatched(looked_for, inversion.point)  # warns
    settings = {name: cfg[name] for name in ("negative", "tau_f", "tau_a", "keep_source", "replay")}
    return Editor(inversion, generation, **settings)


def editor_differences(cfg: DictConfig, difference: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What inversion and generation differ in from the config."""
    steps = {"steps": cfg.generation.steps or generation_steps(cfg.inversion.steps)}

    def of_phase(phase: str) -> dict[str, Any]:
        both = {key: difference.get(key, cfg[phase][key]) for key in ("adaptor", "schedule")}
        return both | difference.get(phase, {}) | steps

    return of_phase("inversion"), of_phase("generation")
