"""The table of pipelines that change images or make videos, with few captions."""

import pytest

from clockwork.miniature import pipeline_tables


@pytest.mark.slow
def test_calibrated_images_are_nearer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Half of eight steps leave out the low-res path; on each call the calibrated maps are nearer than the identity."""
    monkeypatch.setattr(pipeline_tables, "COUNT", 12)
    kept = ("image-to-image, strength 0.8", "inpainting, the left half")
    cls, call = pipeline_tables.CASES["video of 8 frames"]
    cases = {name: pipeline_tables.CASES[name] for name in kept} | {"video": (cls, {**call, "num_frames": 2})}
    monkeypatch.setattr(pipeline_tables, "CASES", cases)
    pipeline_tables.print_table()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:3] for row in rows] == [*([name, "8", "40%"] for name in kept), ["video", "8", "38%"]]
    assert all(float(identity) + 0.5 < float(calibrated) < 60 for *_, identity, calibrated in rows)
