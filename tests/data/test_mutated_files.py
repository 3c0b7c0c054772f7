"""Caption files and rows with random mutations: a sentence or texts, never a crash."""

import gzip
import json
import tempfile
from pathlib import Path

from helpers.caption_files import COCO, CSV, JSONL, TSV, TXT, parquet, table
from helpers.mutations import PROFILE, mutated_bytes, mutated_json
from hypothesis import given
from hypothesis import strategies as st

from clockwork.data.prompts import captions
from clockwork.errors import UserError
from clockwork.evaluation.rows import append_row, flat_row, image_folder, read_rows
from clockwork.reports.spreads import with_spreads
from clockwork.reports.tables import table as markdown_table

FILES = {
    "a.txt": TXT.encode(),
    "a.csv": CSV.encode(),
    "b.csv": CSV.encode("utf-16"),
    "a.tsv": TSV.encode(),
    "a.jsonl": JSONL.encode(),
    "a.json": COCO.encode(),
    "a.csv.gz": gzip.compress(CSV.encode(), mtime=0),
    "a.parquet": parquet(table(["a cat", "two dogs", "a heron"])),
}
ROW = {
    **{"digest": "a", "teacher": "miniature", "adaptor": "resnet", "schedule": "clock2", "steps": 8, "seed": 0},
    **{"images": 3, "prompts": "p", "metrics": {"fid": 1.5, "psnr": 20.0}, "tflops_full": 0.5, "images_digest": "b"},
}


def reads_or_refuses(name: str, content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.write_bytes(content)
        try:
            prompts = captions(file)
        except UserError as error:
            assert len(str(error).splitlines()) == 1 and str(file) in str(error)
            return
        assert prompts and [prompt.id for prompt in prompts] == list(range(len(prompts)))
        assert all(prompt.text.encode() and prompt.text == " ".join(prompt.text.split()) for prompt in prompts)


@PROFILE
@given(name=st.sampled_from(sorted(FILES)), data=st.data())
def test_mutated_bytes_of_caption_files(name: str, data: st.DataObject) -> None:
    reads_or_refuses(name, data.draw(mutated_bytes(FILES[name])))


@PROFILE
@given(name=st.sampled_from(["a.jsonl", "a.json"]), data=st.data())
def test_mutated_json_of_caption_files(name: str, data: st.DataObject) -> None:
    content = [json.loads(line) for line in JSONL.splitlines()] if name == "a.jsonl" else json.loads(COCO)
    changed = data.draw(mutated_json(content))
    lines = changed if name == "a.jsonl" and isinstance(changed, list) else [changed]
    reads_or_refuses(name, "\n".join(map(json.dumps, lines)).encode())


def reports(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_bytes(content)
        append_row(file, {**ROW, "digest": "whole"})
        rows = read_rows(file)
        assert rows[-1] == {**ROW, "digest": "whole"}
        assert all(image_folder(Path(folder), row).resolve().is_relative_to(folder) for row in rows)
        assert len(markdown_table(with_spreads(rows)).splitlines()) >= 3 and all(map(flat_row, rows))


@PROFILE
@given(content=mutated_bytes(b"\n".join(json.dumps({**ROW, "digest": name}).encode() for name in "ab")))
def test_mutated_bytes_of_rows(content: bytes) -> None:
    reports(content)


@PROFILE
@given(row=mutated_json(ROW))
def test_mutated_rows(row: object) -> None:
    reports(json.dumps(row).encode())
