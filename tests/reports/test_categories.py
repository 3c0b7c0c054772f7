"""Figures by category: means over the prompts of each, of all seeds."""

import json
from pathlib import Path

import numpy as np

from clockwork.evaluation.per_image import PerImage, write_per_image
from clockwork.reports.categories import category_sheet
from clockwork.reports.html import write_report

POINT = {"teacher": "small", "teacher_hash": "t", "cut": "2,3", "solver": "dpm++", "guidance": 3.0, "resolution": 32}
SHARED = {"prompts": "p", "images": 3, "metrics_label": "none", "device": "cpu", "tflops_full": 2.0, "latency_ms": None}


def test_a_line_per_category_with_its_mean_over_prompts_and_seeds(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    prompts = [[2, "a heron", "Animals"], [10, "two drums", "Counting"], [11, "a fox", "Animals"]]
    (tmp_path / "prompts" / "p.json").write_text(json.dumps(prompts))
    rows = []
    for seed, scores in enumerate(([0.1, 0.2, 0.5], [0.3, 0.4, 0.7])):  # in the order of the ids as text: 10, 11, 2
        row = {**POINT, **SHARED, "adaptor": "none", "schedule": "full", "steps": 8, "seed": seed, "digest": str(seed)}
        rows.append({**row, "metrics": {"clip_score": float(np.mean(scores))}})
        write_per_image(tmp_path, str(seed), PerImage(["10", "11", "2"], {"clip_score": np.float32(scores)}))
    sheet = category_sheet(rows, tmp_path)
    assert sheet is not None and list(sheet.columns) == ["operating point", "category", "prompts", "CLIP score"]
    assert list(sheet.cells) == [
        ["small, 8 dpm++ steps", "Animals", "2", f"{(0.2 + 0.5 + 0.4 + 0.7) / 4:.4f}"],
        ["small, 8 dpm++ steps", "Counting", "1", "0.2000"],
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "Figures by category" in write_report(tmp_path).read_text()
    (tmp_path / "prompts" / "p.json").write_text(json.dumps([entry[:2] for entry in prompts]))
    assert category_sheet(rows, tmp_path) is None, "prompts without categories"
