"""The adaptor that `scripts/train.py` trains: a new one, a correction of a frozen one, or one that is tuned further."""

import warnings
from dataclasses import asdict

from hydra.utils import instantiate
from omegaconf import DictConfig

from clockwork.adaptors import (
    Adaptor,
    Linear,
    Residual,
    check_teacher,
    check_text_embedder,
    fetch,
    load_adaptor,
    mismatch_message,
    require_both_halves,
)
from clockwork.errors import UserError
from clockwork.experiments.build import check_trainable, is_linear, make_sampler
from clockwork.operating_point import OperatingPoint
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet

SAME = ("schedule", "steps", "resolution")  # of a base and the run, besides teacher and cut


def load_base(cfg: DictConfig) -> Adaptor | None:
    """Loads the adaptor that the config names as `base`, on which training starts.

    Args:
        cfg: The composed config of the command `train`.

    Returns:
        The adaptor; None if the config names none.

    Raises:
        UserError: If the config's adaptor is not one to train, or there is no adaptor in the folder.
    """
    check_trainable(cfg)
    if cfg.base is None:
        return None
    base, _ = load_adaptor(cfg.base)
    if cfg.loss != "latents":
        require_both_halves(base, f"loss={cfg.loss}")
    return base.train()


def make_adaptor(cfg: DictConfig, teacher: Teacher, base: Adaptor | None) -> tuple[str, Adaptor]:
    """Creates the adaptor to train.

    Args:
        cfg: The composed config of the command `train`.
        teacher: The teacher.
        base: The adaptor on which training starts, if there is one.

    Returns:
        The name of the training, and the adaptor: the config's own; with a base a correction of it (`Residual`), or if
        the config's adaptor is linear the base itself.

    Raises:
        UserError: If the base does not belong to the config's operating point, or not below the config's adaptor.
    """
    dims = feature_dims(teacher, str(cfg.cut))
    if base is None:
        return cfg.adaptor_name, instantiate(cfg.adaptor)(dims)
    assert base.point is not None
    check_base(base.point, make_sampler(cfg, teacher, base, base.kind).point)
    check_text_embedder(fetch(cfg.base), None if teacher.text_embedder is None else teacher.text_embedder.config)
    if not is_linear(cfg.adaptor):
        return f"{cfg.adaptor_name}_on_{base.kind}", Residual(base, instantiate(cfg.adaptor)(dims))
    if not isinstance(base, Linear):
        raise UserError(
            f"adaptor={cfg.adaptor_name} tunes the maps of a linear adaptor, but {cfg.base} holds one of kind "
            f"{base.kind}: pass base=<the folder of a linear adaptor>"
        )
    return f"{cfg.adaptor_name}_tuned", base.requires_grad_(True)


def clocked_student(cfg: DictConfig, student: Teacher, solver: str) -> Sampler:
    """Creates the operating point of a student with the config's adaptor, which is trained with the student.

    Args:
        cfg: The composed config of the command `train`.
        student: The student, which takes one pass per step.
        solver: The student's solver.

    Returns:
        The operating point with a new adaptor: a linear one starts as the identity.
    """
    split, schedule = SplitUNet(student.unet, str(cfg.cut)), Schedule.parse(str(cfg.schedule))
    steps = schedule.adaptor_steps(cfg.steps)
    options = {"steps": steps, "branches": ("conditional",)} if is_linear(cfg.adaptor) else {}
    adaptor = instantiate(cfg.adaptor)(feature_dims(student, str(cfg.cut)), **options).to(student.device)
    return Sampler(student, split, schedule, solver, cfg.steps, cfg.guidance, adaptor, cfg.adaptor_name)


def check_base(base: OperatingPoint, run: OperatingPoint) -> None:
    """Checks that a base belongs to the operating point of a training.

    Another solver or guidance scale is allowed, with a warning.

    Args:
        base: The operating point that the base was made for.
        run: That of the training.

    Raises:
        UserError: If teacher, cut, schedule, steps or resolution differ.
    """
    check_teacher(base, run.teacher, run.teacher_hash, run.cut)
    of_base, of_run = asdict(base), asdict(run)
    different = [f"{name} {of_base[name]}, not {of_run[name]}" for name in SAME if of_base[name] != of_run[name]]
    if different:
        raise UserError(
            f"the base was made for {'; '.join(different)}: train at its operating point, or calibrate another base"
        )
    if differences := run.differences(base):
        warnings.warn(mismatch_message(differences), stacklevel=2)
