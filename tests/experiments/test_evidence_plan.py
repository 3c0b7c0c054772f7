"""The rows of evidence: which are missing, before any adaptor exists."""

import json
from pathlib import Path

from hydra import initialize_config_dir
from omegaconf import OmegaConf

from clockwork.experiments.config_files import FOLDER
from clockwork.experiments.configs import compose_config
from clockwork.experiments.evidence_plan import FIELDS, wanted_rows

POINTS = [
    {"adaptor": "none", "schedule": "full", "steps": 2},
    {"adaptor": "linear", "schedule": "clock2", "steps": 2},
    {"adaptor": "none", "rival": "tome", "schedule": "full", "steps": 2},
]


def test_rows_are_known_by_point_seed_and_fit(tmp_path: Path) -> None:
    """Adaptors without weights have no fit; the full teacher's images are planned once per seed."""
    with initialize_config_dir(str(FOLDER), version_base="1.3"):
        cfg = compose_config("evaluate", [f"output={tmp_path}", "prompts.count=3", "metrics=none"])
        rows = wanted_rows(cfg, OmegaConf.to_container(OmegaConf.create(POINTS)), [(0, 5), (1, 6)])
    named = [dict(zip(FIELDS, key, strict=True)) for key in rows.missing()]
    assert [(row["adaptor"], row["seed"], row["fit"]) for row in named] == [
        *(("none", 0, None), ("none", 1, None)),
        *(("linear", 0, 5), ("linear", 1, 6)),
        *(("tome", 0, None), ("tome", 1, None)),
    ]
    plan = rows.plan("without metrics")
    assert (plan.rows, plan.images) == (6, 6 * 3) and plan.seconds is not None
    lines = [{**row, "digest": str(number), "metrics": {}} for number, row in enumerate(named[:3])]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(rows.missing()) == 3
