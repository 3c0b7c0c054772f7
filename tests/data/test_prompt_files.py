"""DrawBench, PartiPrompts and COCO in the formats in which they are published: headers, quotes, categories."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.utils import instantiate

from clockwork.data.prompts import Prompt, captions, prompts_hash
from clockwork.errors import UserError
from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.configs import compose_config

DRAWBENCH = """\ufeffPrompts,Category
A teal coloured bicycle.,Colors
"A heron, a kettle and two drums.",Counting
"A poster that reads ""Open at Noon"".",Text
"""
PARTI = """Prompt\tCategory\tChallenge\tNote
a heron\tAnimals\tBasic\t
"O P E N" written in chalk on a slate\tIllustrations\tWriting & Symbols\tspaced letters
A kettle that says "hot", beside a drum\tArtifacts\tComplex\t
"""


def prompts(name: str, file: Path, *overrides: str) -> list[Prompt]:
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        cfg = compose_config("evaluate", [f"prompts={name}", f"prompts.path={file}", *overrides])
    return list(instantiate(cfg.prompts))


def test_drawbench_is_a_csv_file_with_quotes(tmp_path: Path) -> None:
    (tmp_path / "drawbench.csv").write_text(DRAWBENCH, encoding="utf-8")
    assert prompts("drawbench", tmp_path / "drawbench.csv") == [
        Prompt(0, "A teal coloured bicycle.", category="Colors"),
        Prompt(1, "A heron, a kettle and two drums.", category="Counting"),
        Prompt(2, 'A poster that reads "Open at Noon".', category="Text"),
    ]


def test_partiprompts_is_a_tsv_file_whose_quotes_are_part_of_the_prompts(tmp_path: Path) -> None:
    file = tmp_path / "PartiPrompts.tsv"
    file.write_text(PARTI, encoding="utf-8")
    read = prompts("parti", file)
    assert [prompt.text for prompt in read[1:]] == [
        '"O P E N" written in chalk on a slate',
        'A kettle that says "hot", beside a drum',
    ]
    assert [prompt.category for prompt in read] == ["Animals", "Illustrations", "Artifacts"]
    assert prompts("parti", file, "prompts.category=Challenge")[1].category == "Writing & Symbols"
    assert [prompt.text for prompt in captions(file)] == [prompt.text for prompt in read]
    with pytest.raises(UserError, match=r"line 3 has a quote.*prompts\.quotes=false"):
        captions(file, quotes=True)
    with pytest.raises(UserError, match=r"no column 'Kind', only Prompt, Category"):
        captions(file, category="Kind", quotes=False)


def test_categories_change_no_hash(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(PARTI)
    plain = captions(tmp_path / "a.tsv", quotes=False)
    assert prompts_hash(plain) == prompts_hash(prompts("parti", tmp_path / "a.tsv"))
    assert {prompt.category for prompt in plain} == {None}


def test_coco_is_that_of_2017(tmp_path: Path) -> None:
    file = tmp_path / "captions_val2017.json"
    file.write_text('{"annotations": [{"image_id": 7, "id": 2, "caption": "two herons"}]}')
    assert prompts("coco", file, "prompts.count=1") == [Prompt(0, "two herons")]
