"""Caption files of every kind, and the real ones where they are at hand."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from clockwork.data.caption_files import read_captions
from clockwork.data.prompts import captions

TEXTS = ["a cat on a mat", "two dogs, one ball", 'a "quoted" word', "over\nthree\nlines"]
PLAIN = [*TEXTS[:3], "over three lines"]
DATA = Path(__file__).parents[3] / "shared" / "data"


def written(path: Path, column: str = "caption") -> Path:
    rows = [{"id": i, column: text} for i, text in enumerate(TEXTS)]
    if path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["id", column], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    elif path.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
    else:
        path.write_text("\n\n".join(PLAIN))
    return path


@pytest.mark.parametrize("suffix", [".txt", ".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_reads_the_same(suffix: str, tmp_path: Path) -> None:
    quotes = True if suffix == ".tsv" else None  # as Python's csv module writes them
    assert [text for text, _ in read_captions(written(tmp_path / f"captions{suffix}"), quotes=quotes)] == PLAIN
    if suffix != ".txt":
        other = written(tmp_path / f"other{suffix}", column="words")
        assert [p.text for p in captions(other, column="words", quotes=quotes)] == PLAIN
        with pytest.raises(ValueError, match=r"only id, words.*prompts\.column"):
            captions(other, quotes=quotes)


def test_a_random_sample_takes_every_caption_equally_often(tmp_path: Path) -> None:
    file = tmp_path / "captions.txt"
    file.write_text("\n".join(str(i) for i in range(20)))
    assert captions(file, count=5, sample=1) == captions(file, count=5, sample=1)
    drawn = [p for seed in range(400) for p in captions(file, count=5, sample=seed)]
    assert all(p.text == str(p.id) for p in drawn)
    often = [sum(p.id == i for p in drawn) for i in range(20)]
    assert sum(often) == 2000 and min(often) > 60 and max(often) < 145  # 100 ± 4.6 deviations of 8.7


def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("caption\n")
    (tmp_path / "bad.jsonl").write_text('{"caption": "fine"}\n{broken\n')
    (tmp_path / "other.json").write_text("[]")
    for name, said in {"empty.csv": "no captions", "bad.jsonl": "line 2", "other.json": "not a COCO"}.items():
        with pytest.raises(ValueError, match=said):
            captions(tmp_path / name)
    with pytest.raises(ValueError, match=r"holds 4 captions.*prompts\.count"):
        captions(written(tmp_path / "few.csv"), count=5)
    for count in (0, -1, 1.5, "1", True):
        with pytest.raises(ValueError, match=r"prompts\.count=.* is not possible"):
            captions(tmp_path / "few.csv", count=count)  # type: ignore[arg-type]


@pytest.mark.skipif(not DATA.is_dir(), reason="COCO's captions are not at hand")
def test_cocos_own_files() -> None:
    five = captions(DATA / "captions_val2017.json")
    assert len(five) == 5000 and all(p.text for p in five)
    annotations = json.loads((DATA / "captions_val2017.json").read_text())["annotations"]
    first = min(a["image_id"] for a in annotations)
    of_first = min((a for a in annotations if a["image_id"] == first), key=lambda a: a["id"])
    assert five[0].text == " ".join(of_first["caption"].split())
    thirty = captions(DATA / "coco_30k.csv")
    assert len(thirty) == 30_000 and not any("\n" in p.text for p in thirty)
    assert thirty[0].text == "A bicycle replica with a clock as the front wheel."
