"""Inversion and Plug-and-Play against their own mathematics, the authors' map, and a plain way of computing them."""

import copy
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from helpers.editing import PICTURE, SOURCE, editor
from helpers.models import small_inputs, small_unet
from torch import Tensor, nn

from clockwork.adaptors import NO_HISTORY, Adaptor, FeatureDims, Identity, Taylor
from clockwork.editing.injection import Injection, injected_layers, injecting, recording
from clockwork.editing.inversion import invert
from clockwork.editing.plug_and_play import PlugAndPlay
from clockwork.flops.cost import step_flops
from clockwork.flops.counter import count_flops
from clockwork.flops.editing import editing
from clockwork.sampling.denoisers import ClockworkDenoiser, FullDenoiser
from clockwork.sampling.rollout import rollout
from clockwork.sampling.solvers import make_solver
from clockwork.schedule import Schedule
from clockwork.teachers import Condition, Teacher
from clockwork.unet.split import SplitUNet

TARGET = SOURCE.recoloured("cyan").caption


def test_injected_layers_are_the_authors() -> None:
    """MichalGeyer/pnp-diffusers on SD v1.5: attention of up blocks {1: [1, 2], 2: [0, 1, 2], 3: [0, 1, 2]}, features
    of the resnet up_blocks[1].resnets[1] after its second convolution; int(0.8 · 50) and int(0.5 · 50) steps."""
    unet = small_unet("sd15")
    split = SplitUNet(unet)
    injection = Injection.from_chain(split.chain, steps=50)
    theirs = {1: [1, 2], 2: [0, 1, 2], 3: [0, 1, 2]}
    selves = [unet.up_blocks[b].attentions[i].transformer_blocks[0].attn1 for b in theirs for i in theirs[b]]
    assert injection.attention == tuple(p for attn in selves for p in (attn.to_q, attn.to_k))
    assert injection.convolution is unet.up_blocks[1].resnets[1].conv2
    assert (injection.convolution_steps, injection.attention_steps) == (40, 25)
    assert injected_layers(split.chain) == (5, 6, 8, 9, 10, 12, 13, 14)
    assert injection.modules(25) == (injection.convolution, *injection.attention)
    assert injection.modules(40) == (injection.convolution,) and injection.modules(41) == ()


class PlainAttention:
    """Self-attention written out, with the first row's queries and keys for every row."""

    def __call__(self, attn: Any, x: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        q, k, v = attn.to_q(x), attn.to_k(x), attn.to_v(x)
        q, k = (torch.cat([y[:1]] * len(y)) for y in (q, k))
        q, k, v = (y.unflatten(2, (attn.heads, -1)).transpose(1, 2) for y in (q, k, v))
        weights = (q @ k.transpose(2, 3) * attn.scale).softmax(-1)
        return attn.to_out[0]((weights @ v).transpose(1, 2).flatten(2))


class FirstRow(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.inner(x)[:1]] * len(x))


def plain(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A copy with the authors' injection built in, for diffusers' own forward to run."""
    other = copy.deepcopy(unet)
    for i in injected_layers(SplitUNet(other).chain):
        for block in SplitUNet(other).chain.up[i].attention.transformer_blocks:
            block.attn1.set_processor(PlainAttention())
    resnet = SplitUNet(other).chain.up[injected_layers(SplitUNet(other).chain)[0]].resnet
    resnet.conv2 = FirstRow(resnet.conv2)
    return other


@pytest.mark.parametrize("name", ["sd15", "sdxl", "efficient"])
def test_injection_is_the_plain_computation(name: str) -> None:
    unet, inputs = small_unet(name).double(), small_inputs(name, batch=3)
    inputs = torch.utils._pytree.tree_map_only(Tensor, lambda x: x.double() if x.is_floating_point() else x, inputs)
    split = SplitUNet(unet)
    with torch.no_grad(), injecting(Injection.from_chain(split.chain, 1, 1, 1).modules(1)):
        ours = split(**inputs)
    theirs = plain(unet)(**inputs).sample
    assert (ours - theirs).abs().max() < 1e-12  # of about 1: the attention product alone is summed in another order
    assert (ours - unet(**inputs).sample)[1:].abs().max() > 1e-3
    assert torch.equal(ours[0], split(**inputs)[0])  # the source's own row is what it was


def test_the_whole_loop_is_the_authors(teacher: Teacher) -> None:
    """Inversion, then a batch of three a step: source latent with the empty prompt, negative, target."""
    ours = editor(teacher, 8, 4, negative="black", tau_f=0.75, tau_a=0.5)
    latents = ours.invert(PICTURE, SOURCE.caption)
    conditions = [teacher.encode([text]) for text in ("", "black", TARGET)]
    solver = make_solver("ddim", teacher.noise_schedule)
    solver.set_timesteps(4)
    x, tokens = latents[int(solver.timesteps[0])], torch.cat([c.prompt_embeds for c in conditions])
    injection = Injection.from_chain(ours.generation.split.chain, 4, 0.75, 0.5)
    for step, t in enumerate(solver.timesteps, 1):
        with torch.no_grad(), injecting(injection.modules(step)):
            output = teacher.unet(torch.cat([latents[int(t)], x, x]), t, tokens).sample
        _, negative, target = output.chunk(3)
        x = solver.step(negative + 3.0 * (target - negative), t, x).prev_sample
    assert injection.modules(2) != injection.modules(3) != injection.modules(4) == ()
    assert torch.equal(ours.edit(latents, TARGET), teacher.decode(x)[0])


@pytest.mark.parametrize("clock", ["full", "clock2"])
def test_hooks_go_and_leave_nothing(teacher: Teacher, clock: str) -> None:
    before = {name: dict(vars(module)) for name, module in teacher.unet.named_modules()}
    ours = editor(teacher, 2, 2, clock)
    latents = ours.invert(PICTURE, SOURCE.caption)
    ours.edit(latents, TARGET)
    with pytest.raises(KeyError):  # a latent is missing in the middle of a roll-out
        ours.edit({t: x for t, x in latents.items() if t == max(latents)}, TARGET)
    for module in teacher.unet.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks and "forward" not in vars(module)
    assert all(vars(m).keys() == before[name].keys() for name, m in teacher.unet.named_modules())


def test_on_adaptor_steps_only_the_last_up_block_injects() -> None:
    """At stage 1 the convolution and the other self-attentions lie in the low-res path, which does not run there."""
    unet, inputs = small_unet("sd15"), small_inputs("sd15")
    split = SplitUNet(unet)
    injection = Injection.from_chain(split.chain, 10)
    sample, condition = inputs["sample"], Condition(inputs["encoder_hidden_states"])
    clocked = ClockworkDenoiser(split, Identity(FeatureDims(0, 0, 0, 0)), Schedule.parse("clock2"))
    ran = []
    first = clocked(sample, torch.tensor(500), condition, 1, NO_HISTORY)
    for step, history in ((1, NO_HISTORY), (2, first.history)):
        with recording(injection.modules(step)) as seen:
            clocked(sample, torch.tensor(500), condition, step, history)
        ran.append(set(seen))
    last = {p for a in unet.up_blocks[3].attentions for b in a.transformer_blocks for p in (b.attn1.to_q, b.attn1.to_k)}
    assert ran[0] == set(injection.modules(1)) and ran[1] == last
    none = SplitUNet(small_unet("efficient"))  # no attention at the top: nothing acts there
    assert not set(injected_layers(none.chain)) & set(range(len(none.chain.up) - none.cut.up, len(none.chain.up)))


@pytest.mark.parametrize(("clock", "adaptor"), [("full", None), ("clock2", None), ("clock2", Taylor(order=2))])
def test_source_leaves_the_batch_with_nothing_changed(teacher: Teacher, clock: str, adaptor: Adaptor | None) -> None:
    """Rows of a batch do not touch: in double precision, where a batch's size moves sums in the last digits only."""
    plainly, batches = latents_of(teacher, clock, adaptor=adaptor, keep_source=True)
    saving, smaller = latents_of(teacher, clock, adaptor=adaptor, keep_source=False)
    assert batches == [3] * 6 and smaller == [3, 3, 3, 3, 2, 2]
    assert (plainly - saving).abs().max() < 1e-9


@pytest.mark.parametrize("clock", ["full", "clock2"])
def test_recorded_features_stand_in_for_the_source(teacher: Teacher, clock: str) -> None:
    plainly, _ = latents_of(teacher, clock)
    saving, batches = latents_of(teacher, clock, replay=True)
    assert batches == [1] * 4 + [2] * 6  # the source once, while there is something to record; then the edit
    assert (plainly - saving).abs().max() < 1e-9


def latents_of(teacher: Teacher, clock: str, **settings: Any) -> tuple[Tensor, list[int]]:
    """An edit's last latents in double precision, and the batch of each UNet call."""
    unet = copy.deepcopy(teacher.unet).double()
    pipe = type(teacher.pipe)(**{**teacher.pipe.components, "unet": unet}, requires_safety_checker=False)
    pipe.vae, pipe.text_encoder = copy.deepcopy(pipe.vae).double(), copy.deepcopy(pipe.text_encoder).double()
    ours = editor(Teacher("double", pipe), 6, 6, clock, **settings)
    latents = ours.invert(PICTURE, SOURCE.caption)
    batches: list[int] = []
    hook = unet.conv_in.register_forward_hook(lambda _, __, output: batches.append(len(output)))
    kept: list[Tensor] = []
    decoding = pipe.vae.decoder.conv_in.register_forward_hook(lambda _, args, __: kept.append(args[0]))
    ours.edit(latents, TARGET)
    hook.remove()
    decoding.remove()
    return kept[-1], batches


@pytest.mark.parametrize("settings", [{}, {"keep_source": False}, {"replay": True}], ids=str)
def test_flops_are_those_of_what_ran(teacher: Teacher, settings: dict[str, bool]) -> None:
    """Counted while it runs, less text encoder and autoencoder; a third is equations 4 and 5 with their bracket."""
    ours = editor(teacher, 6, 3, "clock2", tau_f=0.34, tau_a=0.34, **settings)
    latent = teacher.encode_images(PICTURE[None])
    latents = invert(ours.inversion, latent, SOURCE.caption)
    texts = count_flops(
        lambda: teacher.encode([TARGET], with_text_emb=False)
    ).macs  # with guidance each is read beside the empty one
    ran = count_flops(lambda: invert(ours.inversion, latent, SOURCE.caption)).macs - texts
    ran += count_flops(lambda: ours.edit(latents, TARGET)).macs - 6 * texts
    ran -= count_flops(lambda: teacher.decode(latent)).macs
    if settings == {"replay": True}:
        assert ours.flops(edits=2).macs < ours.flops().macs
    assert ours.flops().macs == ran


def test_equations_of_the_paper(teacher: Teacher) -> None:
    """With neither saving, equation 6 as `editing_flops` has it, for a clock that does not divide the steps."""
    ours = editor(teacher, 10, 10, "clock4")
    assert ours.flops() == editing(10, 4, *step_flops(ours.generation))


def test_a_decoder_without_attention_is_refused() -> None:
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        cross_attention_dim=12,
        attention_head_dim=2,
    )
    with pytest.raises(ValueError, match="second up layer with attention"):
        injected_layers(SplitUNet(unet, "layer1").chain)
    with pytest.raises(ValueError, match="shares of the steps"):
        Injection.from_chain(SplitUNet(small_unet("sd15")).chain, 10, tau_f=1.5)
    fused = small_unet("sd15")
    fused.fuse_qkv_projections()
    with pytest.raises(ValueError, match="unfuse"):
        Injection.from_chain(SplitUNet(fused).chain, 10)


def test_several_targets_share_one_source(teacher: Teacher) -> None:
    """One row of source serves any number of edits of its picture."""
    ours = editor(teacher, 2, 2)
    latents = ours.invert(PICTURE, SOURCE.caption)
    start, solver = latents[ours.visited[0]], make_solver("ddim", teacher.noise_schedule)
    texts = [TARGET, SOURCE.recoloured("green").caption]
    denoiser = PlugAndPlay(FullDenoiser(ours.generation.split), ours.injection, latents, teacher.encode([""]))
    negative = teacher.encode([""])
    *_, both = rollout(denoiser, solver, 2, start.expand(2, -1, -1, -1), teacher.encode(texts), negative, 3.0)
    for i, text in enumerate(texts):
        *_, one = rollout(denoiser, solver, 2, start, teacher.encode([text]), negative, 3.0)
        assert torch.allclose(both.latents[i], one.latents[0], atol=1e-4)
