"""Commands as somebody would type them who wants to break them: one sentence, exit status 2, and nothing left behind.

Nothing of a teacher is loaded: the mistake shows in what is cheap to look at.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import run
from helpers.hostile_commands import ABSURD, CASES, FILES, FILES_WRITTEN, OF_TEACHER, OPTIONS, PLACES, REQUIRED, WRITTEN
from PIL import Image

from clockwork import teachers
from clockwork.experiments.options import check_words
from clockwork.experiments.quoting import quoted

OUTPUTS = {"bench": "new.json", "generate": "new.png"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe.txt")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    Image.new("RGB", (32, 32)).save(folder / "good.png")
    yield folder


ALL = {
    **CASES,
    **OPTIONS,
    **ABSURD,
    **OF_TEACHER,
    **{
        f"{command} {REQUIRED.get(command, '')} {key}={path}": f"{key}=.* is not allowed"
        for number, (command, key) in enumerate(WRITTEN.items())
        for path in (PLACES if command == "train" else [PLACES[number % len(PLACES)], "/proc/x"])
    },
    **{f"bench output={path}": "output" for path in FILES_WRITTEN},
    **{f"generate prompt=a output={path}.png": "output=.* is not allowed" for path in FILES_WRITTEN[1:5]},
}


@pytest.mark.parametrize("case", ALL)
def test_a_hostile_command_is_one_sentence(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *words = case.replace("{place}", str(place)).split()
    if command not in ("random_teacher", "score") and "output=" not in case and case not in OPTIONS:
        words.append(f"output={place / OUTPUTS.get(command, 'new')}")
    if command == "train" and "prompts" not in case and case not in OPTIONS:
        words.append("prompts.count=100")
    monkeypatch.setattr(teachers, "load_teacher", None)
    before = sorted(place.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, command, *words)
    errors = capsys.readouterr().err
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert stopped.value.code == 2 and "Traceback" not in errors and "usage" not in errors
    assert re.search(ALL[case], sentence), sentence
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("words", [["--cfg", "job"], ["-c=job"], ["--cfg=job", "--resolve"], ["--help"], ["-i", "all"]])
def test_options_of_hydra_are_taken(words: list[str]) -> None:
    check_words([*words, "steps=3", "~patience", "+trainer.max_steps=4", "hydra.run.dir=outputs/${now:%Y}"])


def test_folders_of_the_user_are_found_below_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert quoted("output=~/adaptors", config="train") == f"output={tmp_path}/adaptors"
    assert quoted("prompts.path=~/a b.txt", config="train") == f"prompts.path={tmp_path}/a b.txt"
    assert quoted("prompt=~/", config="generate") == "prompt='~/'"
    assert quoted("~steps", config="train") == "~steps"
