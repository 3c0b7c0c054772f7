"""The default training of an adaptor, bit for bit against the paper's recipe written out: Section 4.3, equation 3."""

from pathlib import Path

import pytest
import torch
from helpers.commands import config
from pytorch_lightning import seed_everything
from torch import Tensor

from clockwork.adaptors import ResNet
from clockwork.experiments.train import train_adaptor, train_and_validation_items
from clockwork.metrics.similarity import distance
from clockwork.sampling.denoisers import FullDenoiser
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.guidance import apply_guidance, cfg_batch
from clockwork.sampling.rollout import rollout
from clockwork.sampling.solvers import make_solver
from clockwork.teachers import Teacher, load_teacher
from clockwork.unet.split import SplitUNet

LEARNING_RATE, PROMPTS_PER_EPOCH, BATCH_SIZE, STEPS = 1e-3, 3, 4, 4


def examples(teacher: Teacher, captions: list[str], ids: list[int]) -> list[tuple[Tensor, ...]]:
    """`r_in`, the previous `r_out`, both embeddings, and `r_out`, of every second step of the teacher's roll-out."""
    conditions = teacher.conditions(captions, 3.0)
    solver = make_solver("dpm++", teacher.noise_schedule)
    noise = teacher.noise(ids, 1_000_000)
    records = list(rollout(FullDenoiser(SplitUNet(teacher.unet)), solver, STEPS, noise, *conditions, 3.0))
    text_emb = cfg_batch(*conditions).text_emb
    assert text_emb is not None
    parts = []
    for previous, record in ((records[0], records[1]), (records[2], records[3])):
        denoised = record.denoised
        t_emb = denoised.t_emb.expand(2 * len(ids), -1)
        parts.append((denoised.r_in, previous.denoised.r_out, t_emb, text_emb, denoised.r_out))
    return parts


def by_hand(teacher: Teacher, captions: list[str], ids: list[int], guided: bool) -> dict[str, Tensor]:
    """One epoch of Adam on `‖r_out_hat − r_out‖`; with `guided` also on the distance after guidance."""
    adaptor = ResNet(feature_dims(teacher, "stage1"), 64, 2)
    optimizer = torch.optim.Adam(adaptor.parameters(), lr=LEARNING_RATE)
    tensors = [torch.cat(parts) for parts in zip(*examples(teacher, captions, ids), strict=True)]
    rows = torch.arange(len(tensors[0])).reshape(2, 2, -1)  # steps, halves, prompts
    groups = rows.transpose(0, 1).flatten(1) if guided else rows.flatten()[None]
    order = torch.randperm(groups.shape[1], generator=torch.Generator().manual_seed(0))
    for chosen in order.split(BATCH_SIZE // len(groups)):
        r_in, previous, t_emb, text_emb, r_out = (x[groups[:, chosen].flatten()] for x in tensors)
        estimate = adaptor(r_in, previous, t_emb, text_emb)
        loss = distance(estimate, r_out).mean()
        if guided:
            difference = apply_guidance(estimate - r_out, 3.0)
            loss = loss + distance(difference, torch.zeros_like(difference)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return adaptor.state_dict()


@pytest.mark.parametrize("guided", [False, True])
def test_the_default_training_is_the_papers_bit_for_bit(guided: bool, tmp_path: Path) -> None:
    """`guided=0` is the paper's loss, and 1 the miniature's default."""
    options = [f"steps={STEPS}", f"prompts_per_epoch={PROMPTS_PER_EPOCH}", f"batch_size={BATCH_SIZE}", "val_prompts=0"]
    cfg = config(tmp_path, *options, f"guided={int(guided)}", "decay=false", f"learning_rate={LEARNING_RATE}")
    assert (cfg.rollout, cfg.base, cfg.output_loss) == ("teacher", None, 0)
    seed_everything(cfg.seed, verbose=False)
    _, trainer = train_adaptor(cfg)
    assert trainer is not None
    (batches,) = trainer.datamodule.rounds(0)
    items = list(batches[0].items)
    assert len(items) == PROMPTS_PER_EPOCH and set(items) <= set(train_and_validation_items(cfg)[0])
    teacher = load_teacher("miniature", guidance=3.0, openclip="miniature", device="cpu")
    seed_everything(cfg.seed, verbose=False)
    expected = by_hand(teacher, [item.text for item in items], [item.id for item in items], guided)
    for name, weight in trainer.lightning_module.adaptor.state_dict().items():
        assert torch.equal(weight, expected[name]), name
