"""From a config to the live parts it names."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf

from clockwork.adaptors import KINDS, Adaptor, Identity, adaptor_hash, check_point, fetch, is_hub_name, load_adaptor
from clockwork.editing.edit import Editor
from clockwork.errors import MissingFileError, UserError
from clockwork.experiments.command import CONFIGS
from clockwork.flops.editing import generation_steps
from clockwork.io.atomic import atomic_write
from clockwork.sampling.sampler import Setup, widths
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.unet.split import SplitUNet


def make_setup(cfg: DictConfig, teacher: Teacher, adaptor: Adaptor | None = None, name: str = "none") -> Setup:
    """The config's operating point, with an adaptor if there is one."""
    split = SplitUNet(teacher.unet, str(cfg.cut))
    schedule = Schedule.parse(str(cfg.schedule)) if adaptor is not None else Schedule()
    return Setup(teacher, split, schedule, cfg.solver, cfg.steps, cfg.guidance, adaptor, name)


def adaptor_folder(cfg: DictConfig, name: str, under: str) -> Path:
    """Where an adaptor trained at the config's operating point lies."""
    point = f"{cfg.cut}-{cfg.schedule}-{cfg.solver}-{cfg.steps}".replace(",", "_")
    return Path(under) / Path(cfg.teacher.path).name / f"{name}-{point}"


def chosen_setup(cfg: DictConfig, teacher: Teacher, difference: dict[str, Any]) -> Setup:
    """The config's point with a sweep's difference. Adaptor: `none`, `identity`, a trained one by its config's name,
    or a folder; checked against the point."""
    name = str(difference.pop("adaptor", cfg.adaptor_name))
    cfg = cast(DictConfig, OmegaConf.merge(cfg, difference))
    if name == "folder":
        name = str(cfg.adaptor.path)
    if name == "none":
        return make_setup(cfg, teacher)
    if name == "identity":
        return make_setup(cfg, teacher, Identity(widths(teacher, str(cfg.cut))), name)
    folder = trained_folder(cfg, name)
    if (CONFIGS / "adaptor" / f"{name}.yaml").is_file():
        get_class(compose("train", [f"adaptor={name}"]).adaptor._target_)  # imports its file: then its kind is known
    adaptor, trained = load_adaptor(folder)
    kind = next(kind for kind, cls in KINDS.items() if type(adaptor) is cls)
    from_elsewhere = Path(name).is_dir() or is_hub_name(name)
    trained_hash = adaptor_hash(adaptor)
    setup = make_setup(cfg, teacher, adaptor.to(teacher.device, teacher.unet.dtype), kind if from_elsewhere else name)
    setup = replace(setup, trained_hash=trained_hash)
    check_point(trained, setup.point)
    return setup if is_hub_name(name) else replace(setup, folder=folder)


def trained_folder(cfg: DictConfig, name: str) -> Path:
    """Of an adaptor by its config's name, as trained at the config's point, by its folder or its name on the hub."""
    if Path(name).is_dir() or is_hub_name(name):
        return fetch(name)
    folder = adaptor_folder(cfg, name, cfg.adaptors) / "adaptor"
    if not folder.is_dir():
        raise MissingFileError(
            f"no adaptor {name!r} trained at this point: run `python scripts/train.py adaptor={name} "
            f"teacher.path={cfg.teacher.path} cut={cfg.cut} schedule={cfg.schedule} solver={cfg.solver} "
            f"steps={cfg.steps}`, or name a folder"
        )
    return folder


def chosen_editor(cfg: DictConfig, teacher: Teacher, difference: dict[str, Any]) -> Editor:
    """The config's editor with a sweep's difference, of `adaptor` and `schedule`, in both phases unless they have their
    own. Adaptors are looked for at the generation's point: inversion has none of its own."""
    most = cfg.generation.steps or generation_steps(cfg.inversion.steps)
    own = [
        {key: difference.get(key, cfg[p][key]) for key in ("adaptor", "schedule")} for p in ("inversion", "generation")
    ]
    generation = chosen_setup(cfg, teacher, {**own[1], "steps": most})
    inversion = generation if own[0] == own[1] else chosen_setup(cfg, teacher, {**own[0], "steps": most})
    looked_for = inversion.point
    inversion = replace(inversion, solver="ddim_inverse", steps=cfg.inversion.steps, guidance=1.0)
    if inversion.adaptor_name not in ("none", "identity"):
        check_point(looked_for, inversion.point)  # warns
    settings = {name: cfg[name] for name in ("negative", "tau_f", "tau_a", "source_to_the_end", "replay")}
    return Editor(inversion, generation, **settings)


def claim(output: Path, cfg: DictConfig, teacher: Teacher) -> None:
    """Marks an output folder with its config and teacher, and refuses one that was begun with others."""
    settings: Any = OmegaConf.to_container(cfg, resolve=True)
    wanted = {**settings, "teacher_hash": teacher.hash}
    marker = output / "config.json"
    if marker.is_file() and (begun := json.loads(marker.read_text())) != wanted:
        other = sorted(k for k in {*begun, *wanted} if begun.get(k) != wanted.get(k))
        raise UserError(f"{output} was begun with other {', '.join(other)}: say output=<another folder>, or remove it")
    with atomic_write(marker) as partial:
        partial.write_text(json.dumps(wanted, indent=2) + "\n")
