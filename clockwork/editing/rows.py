"""What an editor's row says (`clockwork/evaluation/rows.py` reads and writes them)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was not measured is None. FLOPs are of one edit: the picture's inversion and the generation."""

    digest: str
    benchmark: str
    pairs: int
    pairs_hash: str
    teacher: str
    teacher_hash: str
    cut: str
    resolution: int
    inversion_steps: int
    inversion_full_steps: int
    inversion_schedule: str
    inversion_adaptor: str
    inversion_adaptor_hash: str | None
    generation_steps: int
    generation_full_steps: int
    generation_schedule: str
    generation_adaptor: str
    generation_adaptor_hash: str | None
    guidance: float
    negative: str
    tau_f: float
    tau_a: float
    keep_source: bool
    replay: bool
    clip_score: float | None  # of the target prompt
    dino_distance: float | None  # self-similarity distance to the source
    clip_score_miniature: float | None
    structure_miniature: float | None
    psnr_right: float | None  # to the right answer, where it is known
    psnr_unedited: float | None  # of the source to the right answer: what an edit has to beat
    psnr_reconstruction: float | None  # to the source
    psnr_autoencoder: float | None  # of the source there and back, without diffusion: the reconstruction's limit
    metrics: str
    tflops_paper: float
    tflops_full: float
    gmacs: float
    device: str
    commit: str | None
    versions: str
    precision: str | None = None  # of the teacher
    text_embedder: str | None = None  # whose embedding an adaptor reads
    images_digest: str | None = None  # names the images' folder
