"""Saving a teacher replaces nothing but a teacher."""

from pathlib import Path

import pytest
from helpers.pipelines import make

from clockwork.errors import UserError
from clockwork.teachers.saving import save_pipeline


def test_only_its_own_or_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    pipe, _ = make()
    folder, file = tmp_path / "photos", tmp_path / "file"
    folder.mkdir()
    save_pipeline(pipe, folder)
    save_pipeline(pipe, folder)
    (folder / ".clockwork").unlink()  # as a pipeline that somebody else has saved
    file.write_text("notes")
    before = sorted(tmp_path.rglob("*"))
    for target in (folder, file):
        with pytest.raises(UserError, match="is not replaced"):
            save_pipeline(pipe, target)
    assert sorted(tmp_path.rglob("*")) == before and file.read_text() == "notes"
