"""What a command names that can be checked before its teacher is loaded: device, options of torch.compile, and cuts."""

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from clockwork.errors import UserError
from clockwork.io.device import choose_device, choose_precision
from clockwork.sampling.compiled import step_functions
from clockwork.teachers.folder_check import check_text_width, module_without_weights
from clockwork.teachers.loading import find_folder
from clockwork.unet.chain import Chain, Cut


def check_before_loading(cfg: DictConfig) -> None:
    """Checks device, precision and options of torch.compile, and all cuts against the UNet of the teacher.

    Args:
        cfg: The composed config of a command with a teacher.

    Raises:
        UserError: Something of it is not possible on this machine, or with this teacher.
    """
    device = choose_device(cfg.device)
    choose_precision(cfg.precision, device)
    options: Any = [cfg.teacher.get("compile", False), *(cfg.get("compile") or [])]
    for each in map(_plain, options):
        if each is not False:
            step_functions(each, device)
    check_cuts(cfg)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def check_cuts(cfg: DictConfig) -> None:
    """Checks all cuts of a command's config against the UNet of its teacher.

    Does nothing where the UNet is not known: of a name on the hub, and of a folder that loading refuses.

    Args:
        cfg: The composed config.

    Raises:
        UserError: A cut does not fit the UNet.
    """
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    named = dict(_cuts(values))
    chain = _chain(values) if named else None
    if chain is None:
        return
    for key, cut in named.items():
        try:
            Cut.parse(str(cut), chain).validate(chain)
        except UserError as error:
            raise UserError(f"{key}={cut} is not allowed: {error}") from None


def _cuts(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All cuts with their keys: the command's, those of a menu or a list, and those of operating points."""
    if "cut" in values:
        yield "cut", values["cut"]
    for number, cut in enumerate(values.get("cuts") or []):
        yield f"cuts[{number}]", cut
    if values.get("what") == "menu":
        for number, cut in enumerate(values["menu"]["cuts"]):
            yield f"menu.cuts[{number}]", cut
    for number, point in enumerate(values.get("points") or []):
        if "cut" in point:
            yield f"points[{number}].cut", point["cut"]


def _chain(values: Mapping[str, Any]) -> Chain | None:
    """The layers of the UNet in the teacher's folder; None if they are unknown, or loading says what is wrong."""
    teacher = values.get("teacher") or {}
    is_teachers = teacher.get("_target_") == "clockwork.teachers.load_teacher" and not values.get("channels")
    folder = find_folder(str(teacher["path"])) if is_teachers else None
    if folder is None or not (folder / "unet" / "config.json").is_file():
        return None
    try:
        chain = Chain.from_unet(module_without_weights(folder, "unet"))
    except UserError:
        return None
    if teacher.get("cross_attention_dim") is not None:  # says more than that a cut does not fit
        check_text_width(folder, teacher["cross_attention_dim"])
    return chain
