"""The folder of a run: what it is named by, what it was begun with, and for how many epochs it has been trained."""

import json
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from clockwork.adaptors import read_config
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.io.atomic import atomic_write
from clockwork.io.fingerprint import digest
from clockwork.io.foreign import read_json
from clockwork.io.lock import lock_folder
from clockwork.io.paths import folder_name
from clockwork.teachers import Teacher

# Config keys that do not change a result: where things are, what is logged and shown; and the teacher, prompts and
# images and the base, which are compared by their content.
IGNORED = {
    *("adaptors", "base", "brings", "data", "device", "examples_device", "grids", "hydra", "images", "logger", "name"),
    *("output", "precision", "prompts", "samples_every", "teacher", "teacher_hash", "teacher_name", "teachers"),
}
MARKER = "config.json"


def adaptor_folder(cfg: DictConfig, name: str, under: str) -> Path:
    """The folder of the training of an adaptor at the config's operating point.

    Args:
        cfg: A config with an operating point.
        name: The adaptor's, such as `resnet`.
        under: The folder of all trainings.
    """
    point = f"{cfg.cut}-{cfg.schedule}-{cfg.solver}-{cfg.steps}".replace(",", "_")
    teacher, side = Path(under) / folder_name(cfg.teacher.path), cfg.teacher.resolution
    folder = teacher / f"{name}-{point}-g{float(cfg.guidance):g}{'' if side is None else f'-{side}px'}"
    former = teacher / f"{name}-{point}"  # before names held guidance and resolution
    return former if not folder.exists() and _was_trained_at(former, cfg) else folder


def _was_trained_at(folder: Path, cfg: DictConfig) -> bool:
    if not (folder / "adaptor" / "config.json").is_file():
        return False
    point = read_config(folder / "adaptor")["operating_point"]
    return point["guidance"] == float(cfg.guidance) and cfg.teacher.resolution in (None, point["resolution"])


def claim(
    output: Path,
    cfg: DictConfig,
    teacher: Teacher,
    items: Sequence[Prompt],
    result: Path | None = None,
    ignored: Collection[str] = (),
    base: str | None = None,
    check_result: Callable[[Path], None] | None = None,
) -> int:
    """Marks the folder of a run with everything that changes its result, so that no other run goes on in it.

    The folder is locked until the block of `release_folders` ends, in which this is called.

    Args:
        output: The folder.
        cfg: The run's config.
        teacher: Its teacher.
        items: The prompts or captioned images that it uses.
        result: What a training makes.
        ignored: Further config keys that do not change this run's result.
        base: Fingerprint of the adaptor on which the training starts, if there is one.
        check_result: Raises a UserError if saving the result would replace something else.

    Returns:
        For how many epochs the result has been trained; 0 without one.

    Raises:
        UserError: The folder was begun with something else, named with both values, is not a run's, or another process
            is writing to it. More epochs extend a training.
    """
    settings, marker = _settings(cfg, teacher, items), output / MARKER
    current = {key: value for key, value in settings.items() if key not in ignored}
    current |= {} if base is None else {"base": base}
    content = _content(marker)
    saved: dict[str, Any] = content.get("settings") or _former_settings(content)
    if "settings" not in content:
        saved = {key: value for key, value in saved.items() if key in current}
    if different := _differences(saved, current if "settings" in content else {key: current[key] for key in saved}):
        raise UserError(
            f"{output} was begun with {'; '.join(different)}: pass what it was begun with to go on there, or "
            "output=<another folder>"
        )
    # Earlier versions wrote no `trained`, and a result only at the end.
    trained = content.get("trained", saved.get("epochs", 0)) if result is not None and result.is_dir() else 0
    if check_result is not None and result is not None and trained < cfg.get("epochs", 1):
        check_result(result)
    if is_main_process():
        lock_folder(output, owner=str(content.get("process", "another process")))
    config, process = OmegaConf.to_container(cfg, resolve=True), f"process {os.getpid()} on {socket.gethostname()}"
    _write(marker, {"settings": current, "trained": trained, "process": process, "config": config})
    return int(trained)


def mark_trained(output: Path, epochs: int) -> None:
    """Records that a training has saved its result after so many epochs."""
    marker = output / MARKER
    _write(marker, {**_content(marker), "trained": epochs})


def report_truncation(teacher: Teacher, prompts: Sequence[Prompt]) -> None:
    """Prints, once per run, how many prompts are longer than the teacher's text encoder reads."""
    count = teacher.num_truncated([prompt.text for prompt in prompts]) if is_main_process() else 0
    if count:
        limit = teacher.pipe.tokenizer.model_max_length
        print(
            f"{count} of {len(prompts)} prompts have more than the {limit} tokens that the text encoder reads: cut off"
        )


def is_main_process() -> bool:
    """Whether this process writes: the only one, or the first that torchrun, Slurm or Lightning has started."""
    names = ("RANK", "LOCAL_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


def _content(marker: Path) -> dict[str, Any]:
    """What a folder was begun with; nothing for a new folder."""
    if not marker.exists():
        return {}
    content = read_json(marker)
    if not isinstance(content.get("settings"), dict) and "teacher_hash" not in content:
        raise UserError(f"{marker} was not made by Clockwork, so it is not replaced: pass output=<another folder>")
    return content


def _write(marker: Path, content: Mapping[str, Any]) -> None:
    if is_main_process():
        with atomic_write(marker) as partial:
            partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _settings(cfg: DictConfig, teacher: Teacher, items: Sequence[Prompt]) -> dict[str, Any]:
    """Everything that changes the result, by dotted key, as JSON holds it."""
    content: Any = OmegaConf.to_container(cfg, resolve=True)
    embedder = teacher.text_embedder
    of_teacher = {
        **teacher.identity,
        "guidance": float(teacher.guidance),
        "resolution": teacher.resolution,
        "text_embedder": None if embedder is None else embedder.identity,
    }
    prompts = digest([(item.id, item.text, getattr(item, "source", "")) for item in items])
    raw: Any = OmegaConf.to_container(cfg, resolve=False)
    return {**_flat(content, raw), **{f"teacher.{key}": v for key, v in of_teacher.items()}, "prompts": prompts}


def _former_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Of a folder that an earlier version began: its whole config, with the teacher's fingerprint."""
    return {**_flat(content, content), "teacher.unet": content["teacher_hash"]} if content else {}


def _differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """A phrase per setting, of those that both know: a config key that a later version has added is not among them."""
    common = {key.split(".")[0] for key in saved} & {key.split(".")[0] for key in current}
    different = []
    for key in sorted(saved.keys() | current.keys()):
        before, now = saved.get(key), current.get(key)
        extended = key == "epochs" and before is not None and now is not None and before < now
        if key.split(".")[0] in common and before != now and not extended:
            different.append(f"{key} {before}, not {now}")
    return different


def _flat(content: Mapping[str, Any], raw: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The values by dotted key, without those that do not change the result, or repeat another key's (`lr: ${…}`)."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{above}{name}"
        repeats = above and isinstance(raw[name], str) and raw[name].startswith("${")
        if key in IGNORED or repeats or key.startswith("trainer.enable_"):
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, raw[name], f"{key}.")
        else:
            flat[key] = str(value).rpartition(".")[2] if name == "_target_" else value
    return flat
