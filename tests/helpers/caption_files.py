"""Caption files as people have them, by name: those that are read right, and those that are refused."""

import bz2
import gzip
import json
import lzma
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet

CAPTIONS = ["a cat on a mat", "été à la plage, 夏", "two dogs"]
CSV = 'id,caption\n1,a cat on a mat\n2,"été à la plage, 夏"\n3,two dogs\n'
TSV = "id\tcaption\n1\ta cat on a mat\n2\tété à la plage, 夏\n3\ttwo dogs\n"
JSONL = "".join(json.dumps({"id": i, "caption": text}, ensure_ascii=False) + "\n" for i, text in enumerate(CAPTIONS))
TXT = "\n".join(CAPTIONS) + "\n"
COCO = json.dumps({"annotations": [{"image_id": i, "id": i, "caption": text} for i, text in enumerate(CAPTIONS)]})
BOM = "\ufeff"


def table(values: Any, kind: Any = None, **columns: Any) -> pa.Table:
    return pa.table({"id": [0, 1, 2], "caption": pa.array(values, kind), **columns})


def parquet(content: pa.Table, cut: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(content, sink)
    return bytes(sink.getvalue().to_pybytes()[:cut])


def changed(text: str, old: str, new: str) -> bytes:
    assert old in text
    return text.replace(old, new, 1).encode()


RIGHT: dict[str, tuple[str, bytes]] = {
    "text": ("a.txt", TXT.encode()),
    "text without ending": ("captions", TXT.encode()),
    "text of another ending": ("a.captions", TXT.encode()),
    "text with a byte order mark": ("a.txt", (BOM + TXT).encode()),
    "texts with byte order marks that were joined": (
        "a.txt",
        "".join(BOM + line for line in TXT.splitlines(True)).encode(),
    ),
    "text of Windows": ("a.txt", TXT.replace("\n", "\r\n").encode()),
    "text of old Macs": ("a.txt", TXT.replace("\n", "\r").encode()),
    "text in UTF-16": ("a.txt", TXT.encode("utf-16")),
    "text in UTF-16, big end first": ("a.txt", (BOM + TXT).encode("utf-16-be")),
    "text in UTF-32": ("a.txt", TXT.encode("utf-32")),
    "text without a last line end": ("a.txt", TXT.rstrip().encode()),
    "text with blank lines": ("a.txt", TXT.replace("\n", "\n\n").encode()),
    "text, gzipped": ("a.txt.gz", gzip.compress(TXT.encode())),
    "csv": ("a.csv", CSV.encode()),
    "csv with a byte order mark": ("a.csv", (BOM + CSV).encode()),
    "csv of Windows": ("a.csv", CSV.replace("\n", "\r\n").encode()),
    "csv of old Macs": ("a.csv", CSV.replace("\n", "\r").encode()),
    "csv in UTF-16, as Excel saves it": ("a.csv", CSV.encode("utf-16")),
    "csv in capitals": ("A.CSV", CSV.encode()),
    "csv, gzipped": ("a.csv.gz", gzip.compress(CSV.encode())),
    "csv, gzipped, in capitals": ("A.CSV.GZ", gzip.compress(CSV.encode())),
    "csv, bzipped": ("a.csv.bz2", bz2.compress(CSV.encode())),
    "csv, as xz": ("a.csv.xz", lzma.compress(CSV.encode())),
    "csv, gzipped with a byte order mark": ("a.csv.gz", gzip.compress((BOM + CSV).encode())),
    "csv with spaces in its header": ("a.csv", changed(CSV, "id,caption", "id, caption ")),
    "csv with blank lines": ("a.csv", CSV.replace("\n", "\n\n").encode()),
    "csv with a column that is not filled": ("a.csv", changed(CSV, "id,caption", "id,caption,source")),
    "tsv": ("a.tsv", TSV.encode()),
    "tsv in capitals": ("A.TSV", TSV.encode()),
    "tsv, gzipped": ("a.tsv.gz", gzip.compress(TSV.encode())),
    "jsonl": ("a.jsonl", JSONL.encode()),
    "ndjson": ("a.ndjson", JSONL.encode()),
    "jsonl in capitals": ("A.JSONL", JSONL.encode()),
    "ndjson in capitals": ("A.NdJson", JSONL.encode()),
    "jsonl with a byte order mark": ("a.jsonl", (BOM + JSONL).encode()),
    "jsonl of Windows": ("a.jsonl", JSONL.replace("\n", "\r\n").encode()),
    "jsonl with escapes": ("a.jsonl", "".join(json.dumps({"caption": text}) + "\n" for text in CAPTIONS).encode()),
    "jsonl, gzipped": ("a.jsonl.gz", gzip.compress(JSONL.encode())),
    "jsonl with null": ("a.jsonl", (JSONL + '{"caption": null}\n').encode()),
    "parquet": ("a.parquet", parquet(table(CAPTIONS))),
    "parquet in capitals": ("A.PARQUET", parquet(table(CAPTIONS))),
    "parquet of bytes": ("a.parquet", parquet(table([text.encode() for text in CAPTIONS], pa.binary()))),
    "parquet of large texts": ("a.parquet", parquet(table(CAPTIONS, pa.large_string()))),
    "parquet of a dictionary": (
        "a.parquet",
        parquet(table(CAPTIONS).set_column(1, "caption", pa.array(CAPTIONS).dictionary_encode())),
    ),
    "parquet with images": ("a.parquet", parquet(table(CAPTIONS, image=[b"\x89PNG"] * 3))),
    "COCO": ("a.json", COCO.encode()),
    "COCO in capitals": ("A.JSON", COCO.encode()),
    "COCO with a byte order mark": ("a.json", (BOM + COCO).encode()),
    "COCO, gzipped": ("a.json.gz", gzip.compress(COCO.encode())),
}


def latin(text: str) -> bytes:
    return text.replace("夏", "").encode("latin-1")


ACCENTS = COCO.replace("\\u00e9", "é")
COLUMN = ACCENTS.index("é") + 1
WRONG: dict[str, tuple[str, bytes, str]] = {
    "jsonl of nulls": ("a.jsonl", b'{"caption": null}\n{"caption": " "}\n', r"a\.jsonl holds no captions"),
    "text in Latin-1": ("a.txt", latin(TXT), r"a\.txt, line 2, column 1 is not UTF-8 text"),
    "csv in Latin-1": ("a.csv", latin(CSV), r"a\.csv, line 3, column 4 is not UTF-8 text"),
    "csv in Windows' code page": ("a.csv", "caption\na “quote”\n".encode("cp1252"), "line 2, column 3 is not UTF-8"),
    "tsv in Latin-1, gzipped": ("a.tsv.gz", gzip.compress(latin(TSV)), "line 3, column 3 is not UTF-8"),
    "jsonl in Latin-1": ("a.jsonl", latin(JSONL), "line 2, column 23 is not UTF-8"),
    "COCO in Latin-1": ("a.json", latin(ACCENTS), f"line 1, column {COLUMN} is not UTF-8"),
    "Shift JIS": ("a.txt", "夏\n".encode("shift-jis"), "line 1, column 1 is not UTF-8"),
    "UTF-16 without a mark": ("a.txt", "a cat\n".encode("utf-16-le"), "line 1, column 2 is not UTF-8"),
    "UTF-16, cut off": ("a.txt", TXT.encode("utf-16")[:-1], "is not valid UTF-16 text"),
    "zeros": ("a.txt", b"a cat\n" + bytes(100), "line 2, column 1 is not UTF-8"),
    "a line of 2 MiB": ("a.txt", b"a cat\n" + b"a" * 2**21, "line 2 has more than 1,048,576 characters"),
    "a gzip bomb": ("a.txt.gz", gzip.compress(b"a" * 2**26), "line 1 has more than 1,048,576 characters"),
    "gzip by another name": ("a.csv", gzip.compress(CSV.encode()), "is a gzip file: name it .gz"),
    "not gzip": ("a.csv.gz", CSV.encode(), "is damaged or cut off"),
    "gzip, cut off": ("a.csv.gz", gzip.compress(CSV.encode())[:-12], "is damaged or cut off"),
    "xz, cut off": ("a.csv.xz", lzma.compress(CSV.encode())[:-12], "is damaged or cut off"),
    "bzip2, cut off": ("a.csv.bz2", bz2.compress(CSV.encode())[:-12], "is damaged or cut off"),
    "a sheet": ("a.xlsx", b"PK\x03\x04" + bytes(99), "is a zip file, or a sheet or document in one"),
    "a zip file of csv": ("a.csv.zip", b"PK\x03\x04" + bytes(99), "is a zip file"),
    "zstd": ("a.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(99), "is a zstd file: unpack it"),
    "parquet by another name": ("a.csv", parquet(table(CAPTIONS)), "is a parquet file: name it .parquet"),
    "an image": ("a.txt", b"\x89PNG\r\n" + bytes(99), "is an image; a text file of captions is needed"),
    "a web page": ("a.csv", b"<!DOCTYPE html><html>404</html>", "is a web page: download the file itself"),
    "a git-lfs pointer": ("a.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a git-lfs pointer"),
    "a parquet pointer": (
        "a.parquet",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "git-lfs pointer",
    ),
    "empty text": ("a.txt", b"", "holds no captions"),
    "empty csv": ("a.csv", b"", "holds no captions"),
    "only a header": ("a.csv", b"id,caption\n", "holds no captions"),
    "empty jsonl": ("a.jsonl", b"\n\n", "holds no captions"),
    "empty COCO": ("a.json", b"", r"a\.json, line 1, column 1 is not JSON"),
    "a comma without quotes": (
        "a.csv",
        changed(CSV, "two dogs", "two dogs, one ball"),
        "line 4 has 3 fields, but the header has 2",
    ),
    "semicolons": ("a.csv", CSV.replace(",", ";").encode(), "line 1 is a header separated by ';'"),
    "tabs in csv": ("a.csv", TSV.encode(), r"line 1 is a header separated by '\\t'"),
    "a column twice": ("a.csv", b"caption,id,caption\na,1,b\n", "names the column 'caption' twice"),
    "a field of 200,000 characters": ("a.csv", b"caption\n" + b"a" * 200_000 + b"\n", "line 2 has .*field larger"),
    "jsonl, cut off": ("a.jsonl", JSONL.encode()[:-5], "line 3, column .* is not JSON"),
    "jsonl over several lines": (
        "a.jsonl",
        json.dumps({"caption": "a"}, indent=1).encode(),
        "line 1, column 2 is not JSON",
    ),
    "jsonl of texts": ("a.jsonl", b'"a cat"\n', "line 1 is not a JSON object"),
    "jsonl of lists": ("a.jsonl", JSONL.encode() + b'["a"]\n', "line 4 is not a JSON object"),
    "jsonl, nested deeply": ("a.jsonl", b"[" * 100_000 + b"\n", "line 1 is not JSON that can be read"),
    "jsonl, NaN": (
        "a.jsonl",
        JSONL.encode() + b'{"caption": NaN}\n',
        r"line 4, column 'caption' holds a float \(nan\)",
    ),
    "jsonl, a number": ("a.jsonl", b'{"caption": 5}\n', r"line 1, column 'caption' holds a int \(5\)"),
    "jsonl, a list": ("a.jsonl", b'{"caption": ["a", "b"]}\n', "line 1, column 'caption' holds a list"),
    "jsonl, an object": ("a.jsonl", b'{"caption": {"en": "a"}}\n', "line 1, column 'caption' holds a dict"),
    "jsonl, half a pair": (
        "a.jsonl",
        b'{"caption": "a \\ud800"}\n',
        "line 1, column 'caption' is not valid text at character 3",
    ),
    "jsonl, a zero": ("a.jsonl", b'{"caption": "\\u0000"}\n', "is not valid text at character 1"),
    "jsonl without the column once": (
        "a.jsonl",
        JSONL.encode() + b'{"text": "a"}\n',
        "line 4 is a row without 'caption'",
    ),
    "parquet, cut off": ("a.parquet", parquet(table(CAPTIONS), -20), "is damaged or cut off"),
    "parquet, empty": ("a.parquet", b"", "is damaged or cut off"),
    "parquet of lists": ("a.parquet", parquet(table([["a", "b"]] * 3)), "row 1, column 'caption' holds a list"),
    "parquet of NaN": ("a.parquet", parquet(table([float("nan")] * 3)), "row 1, column 'caption' holds a float"),
    "parquet of numbers": ("a.parquet", parquet(table([1, 2, 3])), "row 1, column 'caption' holds a int"),
    "parquet of times": ("a.parquet", parquet(table([datetime(2026, 1, 1)] * 3)), "holds a datetime"),
    "parquet of other bytes": (
        "a.parquet",
        parquet(table([b"a", b"\xff\xfe", b"c"], pa.binary())),
        "row 2, column 'caption' is not valid text",
    ),
    "parquet, gzipped": ("a.parquet.gz", gzip.compress(parquet(table(CAPTIONS))), "is a compressed parquet file"),
    "COCO of a list": ("a.json", b"[]", "not a COCO caption file"),
    "COCO, cut off": ("a.json", COCO.encode()[:-9], "line 1, column .* is not JSON"),
    "COCO with line ends, cut off": (
        "a.json",
        json.dumps(json.loads(COCO), indent=1).encode()[:-9],
        "line 1., column .* is not JSON",
    ),
    "COCO without annotations": ("a.json", b'{"images": []}', "not a COCO caption file"),
    "COCO with annotations by id": ("a.json", b'{"annotations": {"1": "a"}}', "not a COCO caption file"),
    "COCO of instances": ("a.json", b'{"annotations": [{"image_id": 1, "id": 1, "bbox": []}]}', "no column caption"),
    "COCO with ids as text": (
        "a.json",
        b'{"annotations": [{"image_id": "1", "id": 1}]}',
        "annotation 0 has no image_id and id",
    ),
    "COCO of texts": ("a.json", b'{"annotations": ["a cat"]}', "annotation 0 has no image_id and id"),
    "json lines": ("a.json", JSONL.encode(), "line 2, column 1 is not JSON: Extra data"),
}
