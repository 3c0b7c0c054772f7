"""What an operating point's row says (`clockwork/rows.py` reads and writes them)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was not measured is None. FLOPs are of one image, all steps; `*_miniature` are the small metrics."""

    digest: str
    teacher: str
    teacher_hash: str
    cut: str
    adaptor: str
    adaptor_hash: str | None
    schedule: str
    solver: str
    steps: int
    full_steps: int
    calls: int
    guidance: float
    resolution: int
    prompts: str
    images: int
    seed: int
    fid: float | None
    clip_score: float | None
    fid_miniature: float | None
    clip_score_miniature: float | None
    metrics: str
    psnr: float | None  # to the full teacher's picture at the same steps
    ssim: float | None
    tflops_paper: float
    tflops_full: float
    gmacs: float
    latency_ms: float | None
    device: str
    commit: str | None
    versions: str
    teacher_digest: str | None = None  # of the full teacher at the same steps, whose pictures psnr and ssim look at
    command: str | None = None  # that measured it
