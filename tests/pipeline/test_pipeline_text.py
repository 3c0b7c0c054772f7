"""The text that adaptors read, found behind a pipeline's text features."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pipelines import GIVEN, PROMPT, counts, generate, make, miniature_pipeline, reasons, steps

import clockwork
from clockwork.adaptors import ResNet
from clockwork.miniature.teacher import small_clip
from clockwork.pipeline.enable import enabled_hook
from clockwork.pipeline.hook import UNKNOWN_PROMPT
from clockwork.teachers import Teacher, text_embedder
from clockwork.teachers.text_embedder import OpenCLIP


def test_text_follows_the_prompt(teacher: Teacher, trained: Path) -> None:
    """A picture is that of a pipeline that saw no other prompt."""
    pipe = miniature_pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    for prompt in ("a green star", PROMPT, "a green star"):
        alone = miniature_pipeline(teacher)
        clockwork.enable(alone, adaptor=trained)
        arguments = {**GIVEN, "prompt": prompt, "num_images_per_prompt": 2, "negative_prompt": "a blue square"}
        assert torch.equal(generate(pipe, **arguments), generate(alone, **arguments))
        assert not reasons(pipe)
    hook = enabled_hook(pipe).prompts
    assert hook is not None
    tokens = pipe.encode_prompt(["a green star", PROMPT], torch.device("cpu"), 1, False)[0]
    expected = small_clip().encode_text(["a green star", PROMPT])
    assert torch.allclose(hook.text_emb(tokens), expected, atol=1e-6)
    assert not torch.equal(*expected.chunk(2))


def test_a_prompt_that_is_not_known_makes_full_steps(teacher: Teacher, trained: Path) -> None:
    pipe = miniature_pipeline(teacher)
    tokens, negative = pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, True)
    arguments = {**GIVEN, "prompt": None, "prompt_embeds": tokens, "negative_prompt_embeds": negative}
    plain = generate(pipe, **arguments)
    clockwork.enable(pipe, adaptor=trained)
    assert torch.equal(generate(pipe, **arguments), plain)  # encoded before: nothing is known of it
    assert steps(pipe) == "FFFF" and reasons(pipe) == [UNKNOWN_PROMPT] * 2
    tokens, negative = pipe.encode_prompt(PROMPT, torch.device("cpu"), 1, True)
    arguments |= {"prompt_embeds": tokens, "negative_prompt_embeds": negative}
    by_features = generate(pipe, **arguments)
    assert steps(pipe) == "FaFa"
    assert torch.equal(generate(pipe, **GIVEN), by_features)
    arguments["prompt_embeds"] = 0.9 * tokens  # as weighted prompts are
    generate(pipe, **arguments)
    assert steps(pipe) == "FFFF"


def test_text_of_two_encoders() -> None:
    """SDXL: features of two encoders side by side; no negative prompt is zeros there, and means the empty one."""
    pipe, _ = make("StableDiffusionXLPipeline")
    clip = small_clip()
    from clockwork.pipeline.attach import attach
    from clockwork.pipeline.prompt_lookup import PromptHook

    hook = PromptHook(pipe.tokenizer, clip)
    attach(pipe.text_encoder, hook, hook.name)
    tokens, negative, *_ = pipe.encode_prompt(PROMPT)
    assert torch.allclose(hook.text_emb(torch.cat([negative, tokens])), clip.encode_text(["", PROMPT]), atol=1e-6)


def test_a_copy_and_offloading_keep_the_text(teacher: Teacher, trained: Path) -> None:
    import accelerate

    pipe = miniature_pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    expected = generate(pipe, **GIVEN)
    twin = copy.deepcopy(pipe)
    clockwork.disable(pipe)
    assert torch.equal(generate(twin, **GIVEN), expected)
    assert not reasons(twin)
    accelerate.cpu_offload_with_hook(pipe.text_encoder, torch.device("cpu"))
    clockwork.enable(pipe, adaptor=trained)
    assert torch.equal(generate(pipe, **GIVEN), expected)
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe, **GIVEN), generate(miniature_pipeline(teacher), **GIVEN))


def test_an_adaptor_object_without_its_text_is_refused(teacher: Teacher, trained: Path) -> None:
    adaptor, _ = clockwork.load_adaptor(trained)
    with pytest.raises(ValueError, match="which OpenCLIP model"):
        clockwork.enable(miniature_pipeline(teacher), adaptor=adaptor)
    pipe = miniature_pipeline(teacher)
    clockwork.enable(pipe, adaptor=ResNet(adaptor.dims, 16, 1, ("r_in", "r_out_prev", "t_emb")))
    with_it = generate(pipe, **GIVEN)
    clockwork.enable(pipe)
    assert torch.equal(generate(pipe, **GIVEN), with_it)  # untrained, it is the identity


def test_openclip_is_loaded_once(teacher: Teacher, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two threads at once, enabled twice, on two pipelines, under two names of a device."""
    import open_clip

    loaded: list[str] = []
    create = open_clip.create_model

    def load(name: str, **options: Any) -> Any:
        loaded.append(name)
        return create(name, **options)

    monkeypatch.setattr(open_clip, "create_model", load)
    text_embedder._load.cache_clear()
    pipes = [miniature_pipeline(teacher), miniature_pipeline(teacher)]
    for pipe in (*pipes, pipes[0]):
        clockwork.enable(pipe, adaptor=trained)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda pipe: generate(pipe, **GIVEN), pipes)
    assert torch.equal(one, other) and all(counts(pipe) == (2, 2) for pipe in pipes)
    assert len(loaded) == 1
    for device in ("cpu", "cpu:0", torch.device("cpu"), torch.device("cpu", 0)):
        small_clip(device, text_only=True).encode_text(["a green star"])
    assert len(loaded) == 1


def test_pipelines_that_share_a_text_encoder(teacher: Teacher, trained: Path) -> None:
    """Each finds its prompts, whichever of the others is enabled, enabled again or disabled."""
    pipe, other = miniature_pipeline(teacher), miniature_pipeline(teacher)
    other.text_encoder = pipe.text_encoder
    plain = generate(pipe, **GIVEN)
    clockwork.enable(pipe, adaptor=trained)
    expected = generate(pipe, **GIVEN)
    clockwork.enable(other, adaptor=trained)
    for change in (None, clockwork.enable, clockwork.disable):
        if change is not None:
            change(other)
        assert torch.equal(generate(pipe, **GIVEN), expected) and not reasons(pipe)
    clockwork.disable(pipe)
    assert torch.equal(generate(pipe, **GIVEN), plain)
    assert not pipe.text_encoder._diffusers_hook.hooks


def test_prompts_are_looked_up_while_others_are_encoded(teacher: Teacher, trained: Path) -> None:
    """In two threads: the encoder's calls of one do not disturb the other's search."""
    pipe = miniature_pipeline(teacher)
    clockwork.enable(pipe, adaptor=trained)
    prompts = enabled_hook(pipe).prompts
    assert prompts is not None
    encode = partial(pipe.encode_prompt, device=torch.device("cpu"), num_images_per_prompt=1)
    unknown = encode("a green star", do_classifier_free_guidance=False)[0] + 1
    done = threading.Event()

    def keep_encoding() -> None:
        while not done.is_set():
            encode(PROMPT, do_classifier_free_guidance=False)

    with ThreadPoolExecutor(1) as threads, torch.no_grad():
        encoding = threads.submit(keep_encoding)
        try:
            assert all(prompts.text_emb(unknown) is None for _ in range(200))
        finally:
            done.set()
        encoding.result()


def test_openclip_by_config() -> None:
    shipped = small_clip()
    assert shipped.config == {"name": "miniature", "tag": None}
    for clip in (shipped, OpenCLIP("ViT-g-14", "laion2b_s34b_b88k")):
        assert asdict_of(OpenCLIP.from_config(clip.config)) == asdict_of(clip)


def asdict_of(clip: OpenCLIP) -> tuple[str, str | None]:
    return clip.name, clip.tag
