"""Whether an adaptor belongs to the teacher and the operating point at which it is used."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clockwork.adaptors.base import Adaptor, FeatureDims
from clockwork.adaptors.folder import read_config
from clockwork.errors import UserError
from clockwork.operating_point import OperatingPoint


def check_teacher(trained: OperatingPoint, teacher: str, teacher_hash: str, cut: str) -> None:
    """Checks that an adaptor was trained for a teacher and a cut.

    Args:
        trained: The operating point that the adaptor was trained for.
        teacher: Name of the teacher, for the message.
        teacher_hash: Fingerprint of its UNet's weights.
        cut: The cut, `down,up`.

    Raises:
        UserError: If the adaptor was trained for another teacher or cut.
    """
    if trained.teacher_hash != teacher_hash or trained.cut != cut:
        raise UserError(
            f"this adaptor was trained for teacher {trained.teacher} ({trained.teacher_hash}) at cut {trained.cut}, "
            f"not {teacher} ({teacher_hash}) at cut {cut}: train one for it, or use the identity adaptor"
        )


def check_dims(adaptor: Adaptor, actual: FeatureDims, cut: str) -> None:
    """Checks that an adaptor's weights fit the features that it will receive.

    Args:
        adaptor: The adaptor.
        actual: The dimensions of the features at the cut, and of the embeddings.
        cut: The cut, for the message.

    Raises:
        UserError: The weights are for features or embeddings of other dimensions.
    """
    different = {(name, value) for name, value in adaptor.required_dims() if value != getattr(actual, name)}
    if different:
        listed = ", ".join(f"{name} {value}, not {getattr(actual, name)}" for name, value in sorted(different))
        raise UserError(
            f"this {adaptor.kind} adaptor is for features of other sizes than those at cut {cut} of this teacher "
            f"({listed}): use one that was trained for this teacher and cut"
        )


def check_text_embedder(folder: str | Path, embedder: Mapping[str, Any] | None) -> None:
    """Checks that an adaptor that reads text was trained with the teacher's text embedder.

    Args:
        folder: The adaptor's folder, whose config names its text embedder under `openclip`.
        embedder: Config of the teacher's text embedder (`OpenCLIP.config`); None if the teacher has none.

    Raises:
        UserError: If the adaptor was trained with another text embedder.
    """
    config = read_config(folder)
    trained = config.get("openclip")
    if "text_emb" in config["adaptor"].get("inputs", ()) and trained is not None and trained != embedder:
        name, tag = (trained.get(key) for key in ("name", "tag"))
        current = "none" if embedder is None else " ".join(filter(None, (embedder["name"], embedder["tag"])))
        raise UserError(
            f"the adaptor in {folder} reads text of {' '.join(filter(None, (name, tag)))}, but the teacher's text "
            f"embedder is {current}: pass teacher.openclip={name} teacher.openclip_tag={tag or 'null'}, "
            "or train another adaptor"
        )


def warn_if_mismatched(trained: OperatingPoint, current: OperatingPoint) -> None:
    """Warns if an adaptor is used at another operating point than it was trained for (paper, Section 6).

    Args:
        trained: The operating point that the adaptor was trained for.
        current: The operating point at which it is used.

    Raises:
        UserError: If the teacher or the cut differs.
    """
    check_teacher(trained, current.teacher, current.teacher_hash, current.cut)
    if differences := current.differences(trained):
        warnings.warn(mismatch_message(differences), stacklevel=2)


def mismatch_message(differences: list[str]) -> str:
    """Returns the warning for an adaptor that is used at another operating point than it was trained for.

    Args:
        differences: The differences, from `OperatingPoint.differences`.
    """
    return f"adaptor used away from the operating point it was trained for: {'; '.join(differences)}"
