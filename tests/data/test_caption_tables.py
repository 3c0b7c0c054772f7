"""Caption files as people have them: read right, or refused with file, line and column."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.caption_files import CAPTIONS, JSONL, RIGHT, WRONG

from clockwork.data.prompts import captions
from clockwork.errors import UserError


@pytest.mark.parametrize("name", RIGHT)
def test_a_file_is_read_right(name: str, tmp_path: Path) -> None:
    file, content = RIGHT[name]
    (tmp_path / file).write_bytes(content)
    assert [prompt.text for prompt in captions(tmp_path / file)] == CAPTIONS


# the quotes of a row of a csv or tsv file, by `quotes`: its caption, or what the refusal says
QUOTES: dict[tuple[str, bool | None, str], str] = {
    ("a.csv", None, '5" disc, red'): "!line 2 has 2 fields, but the header has 1",
    ("a.csv", None, '"a, b"'): "a, b",
    ("a.csv", None, 'a 5" disc'): 'a 5" disc',
    ("a.csv", None, '"say ""hi"""'): 'say "hi"',
    ("a.csv", None, '"O P E N" on a slate'): "!line 2 has a quote that does not enclose a field",
    ("a.csv", None, '"never closed'): "!line 2 has a quote that does not enclose a field",
    ("a.csv", False, '"O P E N" on a slate'): '"O P E N" on a slate',
    ("a.csv", False, '"all"'): '"all"',
    ("a.tsv", None, '"O P E N" on a slate'): '"O P E N" on a slate',
    ("a.tsv", None, 'a 5" disc'): 'a 5" disc',
    ("a.tsv", None, "'tis, isn't it"): "'tis, isn't it",
    ("a.tsv", None, '"'): '"',
    ("a.tsv", None, '"all"'): "!line 2, field 1 seems to be quoted",
    ("a.tsv", None, '"say ""hi"""'): "!line 2, field 1 seems to be quoted",
    ("a.tsv", None, '"never closed'): "!line 2, field 1 seems to be quoted",
    ("a.tsv", None, "a\tb"): "!line 2 has 2 fields, but the header has 1",
    ("a.tsv", False, '"all"'): '"all"',
    ("a.tsv", True, '"say ""hi"""'): 'say "hi"',
    ("a.tsv", True, '"a\tb"'): "a b",
}


@pytest.mark.parametrize(("file", "quotes", "row"), QUOTES)
def test_quotes(file: str, quotes: bool | None, row: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(f"caption\n{row}\n")
    expected = QUOTES[file, quotes, row]
    if expected.startswith("!"):
        with pytest.raises(UserError, match=rf"{file}, {expected[1:]}"):
            captions(tmp_path / file, quotes=quotes)
    else:
        assert [prompt.text for prompt in captions(tmp_path / file, quotes=quotes)] == [expected]


@pytest.mark.parametrize("name", WRONG)
def test_a_file_is_refused_with_its_place(name: str, tmp_path: Path) -> None:
    file, content, expected = WRONG[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=expected) as refused:
        captions(tmp_path / file)
    assert str(tmp_path / file) in str(refused.value) and len(str(refused.value).splitlines()) == 1


def test_categories_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"caption": "a", "kind": null}\n{"caption": "b", "kind": 3}\n')
    assert [p.category for p in captions(tmp_path / "a.jsonl", category="kind")] == [None, "3"]


@pytest.mark.parametrize("write", [lambda text: text.encode(), lambda text: gzip.compress(text.encode())])
def test_the_first_captions_are_read_alone(write: Callable[[str], bytes], tmp_path: Path) -> None:
    """What lies behind them may be wrong."""
    file = tmp_path / ("a.jsonl" if write("a") == b"a" else "a.jsonl.gz")
    file.write_bytes(write(JSONL + "{broken\n"))
    assert [prompt.text for prompt in captions(file, 3)] == CAPTIONS
