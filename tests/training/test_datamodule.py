"""An epoch's examples: the same ones in any amount of memory, shared equally by processes, planned before they are
made."""

from dataclasses import fields, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.models import small_teacher
from torch import Tensor

from clockwork.adaptors import ResNet
from clockwork.data.prompts import Prompt
from clockwork.errors import UserError
from clockwork.miniature.teacher import small_clip
from clockwork.sampling.feature_shapes import feature_dims
from clockwork.sampling.sampler import Sampler
from clockwork.schedule import Schedule
from clockwork.teachers import Teacher
from clockwork.teachers.text_embedder import OpenCLIP
from clockwork.training.adaptor_example import AdaptorExample
from clockwork.training.batches import shuffled
from clockwork.training.datamodule import GIB, Epoch, OnlineDataModule
from clockwork.training.examples import TrajectoryExamples
from clockwork.training.latents import UnrolledLatents
from clockwork.training.store import Batch, ExampleStore
from clockwork.unet.split import SplitUNet

PROMPTS = [Prompt(i, f"a red circle {i}") for i in range(20)]


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return small_teacher("bk_sdm_tiny", guidance=3.0, text_embedder=small_clip())


def sampler(teacher: Teacher, inputs: tuple[str, ...] = ("r_in", "r_out_prev", "t_emb", "text_emb")) -> Sampler:
    adaptor = ResNet(feature_dims(teacher, "stage1"), 8, 1, inputs)
    return Sampler(teacher, SplitUNet(teacher.unet), Schedule.parse("clock2"), "dpm++", 4, 3.0, adaptor, "resnet")


def flat(batch: Batch) -> list[Any]:
    values = [value for f in fields(batch) if (value := getattr(batch, f.name)) is not None]
    return [x.tolist() if isinstance(x, Tensor) else list(x) for x in values]


def tensors(batch: Batch) -> dict[str, Tensor]:
    return {f.name: value for f in fields(batch) if isinstance(value := getattr(batch, f.name), Tensor)}


def test_batches_are_the_generated_examples_in_torchs_order(teacher: Teacher) -> None:
    """By hand: the sources' examples joined, then indexed by `torch.randperm` over pairs of halves."""
    source = TrajectoryExamples(sampler(teacher))
    data = OnlineDataModule(source, PROMPTS, 5, repeats_per_epoch=2, batch_size=6, generation_batch_size=2, seed=3)
    (batches,) = data.rounds(1)
    everything = AdaptorExample.join([source(batch.items, 4_000_001) for batch in batches])
    negative, positive = ((everything.conditional == half).nonzero().flatten() for half in (0, 1))
    order = torch.Generator().manual_seed(300_010)
    wanted = [
        torch.cat([negative[chosen], positive[chosen]])
        for _ in range(2)
        for chosen in torch.randperm(len(negative), generator=order).split(3)
    ]
    epoch = Epoch(data, 1)
    made = list(epoch)
    assert len(made) == len(epoch) == len(wanted) == 8
    for batch, index in zip(made, wanted, strict=True):
        for name, values in tensors(batch).items():
            assert torch.equal(values, tensors(everything)[name][index]), name
        half = len(batch) // 2
        assert batch.conditional.tolist() == [0] * half + [1] * half and torch.equal(
            batch.step[:half], batch.step[half:]
        )


def test_without_the_guided_loss_examples_are_independent(teacher: Teacher) -> None:
    """The paper's loss takes each half for itself: 16 of a batch are 16 different examples, seldom pairs."""
    data = OnlineDataModule(TrajectoryExamples(sampler(teacher)), PROMPTS, 4, 2, 5, grouped=False)
    sizes, places = [], []
    for index in shuffled(torch.arange(16)[None], 2, data.groups_per_batch, torch.Generator().manual_seed(0)):
        sizes.append(len(index))
        places += index.tolist()
    assert sizes == 2 * [5, 5, 5, 1] and sorted(places) == sorted(2 * list(range(16)))
    batches = list(Epoch(data, 0))
    assert [len(batch) for batch in batches] == sizes and len(Epoch(data, 0)) == len(sizes)
    assert any(batch.conditional.sum() * 2 != len(batch) for batch in batches)


@pytest.mark.parametrize("grouped", [True, False])
def test_the_prompts_of_a_batch_are_known_afterwards(teacher: Teacher, grouped: bool) -> None:
    source = TrajectoryExamples(sampler(teacher))
    size = 4 * source.example_bytes()
    data = OnlineDataModule(source, PROMPTS, 7, 2, 4, 2, max_gb=3 * size / GIB, grouped=grouped)
    assert len(data.rounds(1, 1, 2)) > 1
    alone = cache(lambda item: source([item], data.noise_seed(1)))
    for number, batch in enumerate(Epoch(data, 1, 1, 2)):
        items = data.items_of_batch(1, number, 1, 2)
        assert len(items) == len(batch) // data.group_size
        for place, item in enumerate(items):
            example = alone(item)
            (row,) = ((example.step == batch.step[place]) & (example.conditional == batch.conditional[place])).nonzero()
            torch.testing.assert_close(batch.r_in[place], example.r_in[row[0]], rtol=1e-3, atol=1e-4)
    with pytest.raises(IndexError):
        data.items_of_batch(1, number + 1, 1, 2)


def test_a_set_that_does_not_fit_is_several_rounds(teacher: Teacher) -> None:
    """Memory is bounded and allocated once; each prompt's examples are seen as often as before."""
    source = TrajectoryExamples(sampler(teacher))
    size = source.example_bytes()
    joined = source(PROMPTS[:1], 0)
    real = sum(x[0].numel() * x.element_size() for x in tensors(joined).values())
    assert size == real
    per_prompt = 4 * size  # two adaptor steps, two halves
    data = OnlineDataModule(source, PROMPTS, 10, 2, 4, 2, max_gb=5 * per_prompt / GIB)
    assert [[len(b.items) for b in part] for part in data.rounds(0)] == [[2], [2, 2], [2, 2]]
    buffers = set()
    seen = []
    for batch in (epoch := Epoch(data, 0)):
        seen += [tuple(row) for row in batch.r_in.flatten(1)[:, :4].tolist()]
        buffers |= {value.data_ptr() for value in data.store._values.values()}
        assert data.store.capacity * size <= 4 * per_prompt
    assert len(seen) == 2 * 10 * 4 and all(seen.count(row) == 2 for row in seen)
    assert len(list(epoch)) == len(epoch) == 2 * (2 + 4 + 4)
    assert len(buffers) == len(tensors(joined))


def test_captions_come_with_their_latents(teacher: Teacher) -> None:
    made = replace(sampler(teacher), adaptor=None, schedule=Schedule())
    source = UnrolledLatents(made, scales=(1.0, 5.0), step_counts=(2, 5))
    data = OnlineDataModule(source, PROMPTS, 6, 1, 4, 2)
    noise = {tuple(teacher.noise([p.id], 1_000_000).flatten()[:3].tolist()): p.text for p in PROMPTS}
    starts = 0
    for batch in Epoch(data, 0):
        for latent, caption in zip(batch.latents, batch.captions, strict=True):
            if (key := tuple(latent.flatten()[:3].tolist())) in noise:
                assert noise[key] == caption
                starts += 1
    assert starts == 6


@pytest.mark.parametrize("place", ["auto", "device", "cpu"])
def test_examples_are_the_same_wherever_they_are_kept(teacher: Teacher, place: str) -> None:
    source = TrajectoryExamples(sampler(teacher))
    (on_device,), (elsewhere,) = (
        list(Epoch(OnlineDataModule(source, PROMPTS, 1, 1, 9, examples_device=p), 0)) for p in ("device", place)
    )
    assert flat(on_device) == flat(elsewhere)
    with pytest.raises(UserError, match="examples_device=gpu"):
        ExampleStore("gpu")


# --- several processes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [17, 2, 3, 8])
def test_two_processes_have_equally_many_of_everything(teacher: Teacher, count: int) -> None:
    """Each prompt once; with an odd number one of them twice. What is drawn per batch is the same in both."""
    made = replace(sampler(teacher), adaptor=None, schedule=Schedule())
    source = UnrolledLatents(made, scales=(1.0, 5.0), step_counts=(2, 9))
    data = OnlineDataModule(source, PROMPTS, count, 2, 4, 3)
    shares = [[batch for part in data.rounds(0, rank, 2) for batch in part] for rank in (0, 1)]
    assert [(len(b.items), b.id, b.work) for b in shares[0]] == [(len(b.items), b.id, b.work) for b in shares[1]]
    assert len(Epoch(data, 0, 0, 2)) == len(Epoch(data, 0, 1, 2))
    ids = [item.id for share in shares for batch in share for item in batch.items]
    alone = [item.id for part in data.rounds(0) for batch in part for item in batch.items]
    assert set(ids) == set(alone) and len(ids) == count + count % 2
    with pytest.raises(UserError, match="2 prompts or images for 3 processes"):
        OnlineDataModule(source, PROMPTS, 2).rounds(0, 0, 3)


def test_adaptors_that_read_no_text_load_no_text_embedder() -> None:
    absent = OpenCLIP("local-dir:/nowhere")
    teacher = small_teacher("bk_sdm_tiny", guidance=3.0)
    teacher.text_embedder = absent
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OpenCLIP, "width", 12)
        made = sampler(teacher, ("r_in", "r_out_prev", "t_emb"))
        source = TrajectoryExamples(made)
        assert source(PROMPTS[:2], 0).text_emb.shape == (8, 0)
        batch = source(PROMPTS[:1], 0)
        real = sum(x[0].numel() * x.element_size() for x in tensors(batch).values())
        assert source.example_bytes() == real


def test_validation_examples_are_the_held_out_ones_every_time(teacher: Teacher) -> None:
    source = TrajectoryExamples(sampler(teacher))
    data = OnlineDataModule(source, PROMPTS, 1, 1, 6, 2, grouped=False, validation=PROMPTS[:3])
    data.trainer = SimpleNamespace(global_rank=0, world_size=1)
    batches = data.val_dataloader()
    once, again = list(batches), list(batches)
    assert len(once) == len(batches) == 2 and [flat(batch) for batch in once] == [flat(batch) for batch in again]
    assert sum(map(len, once)) == 12 and all(2 * batch.conditional.sum() == len(batch) for batch in once)
    wanted = AdaptorExample.join([source(PROMPTS[:2], 999_999), source(PROMPTS[2:3], 999_999)])
    negative, positive = ((wanted.conditional == half).nonzero().flatten() for half in (0, 1))
    first = torch.cat([negative[:3], positive[:3]])
    assert torch.equal(once[0].r_in, wanted.r_in[first]) and torch.equal(once[0].conditional, wanted.conditional[first])
