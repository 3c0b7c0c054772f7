"""Prompts and paths reach the config as they were typed, without Hydra's grammar; what is quoted stays as it is."""

from collections.abc import Iterator

import pytest
from helpers.commands import ROOT
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from clockwork.experiments.configs import compose_config
from clockwork.experiments.quoting import quoted


@pytest.fixture(scope="module", autouse=True)
def hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        yield


TEXTS = [
    "a cat, sitting on a mat",
    "it's a cat",
    "the cats' mat",
    "'tis",
    'a "quoted" cat',
    '"all" in "quotes"',
    "été à Paris, 夏の海",
    "[a, b] cat",
    "[a]",
    "{a: b}",
    "(a:1.2) cat",
    "a cat #1",
    "#1",
    "a = b",
    "a=b",
    "~cat",
    "+cat",
    "a: b",
    "a\\b",
    "a\\",
    "a\\'b",
    "1984",
    "8.50",
    "true",
    "1e3",
    "inf",
    "50% of a cat!?",
    "a|b;c&d*e@f^g`h",
    "C:\\cats\\",
    "a  b",
    " a",
    "a <b>c</b>",
    "what is $5?",
]
PATHS = [text for text in TEXTS if text not in ("[a]", "{a: b}", " a", "a  b", "true", "8.50", "1e3", "inf")]


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_is_read_as_it_was_typed(text: str) -> None:
    word = quoted(f"prompt={text}", config="generate")
    assert compose_config("generate", [word]).prompt == text
    assert quoted(word, config="generate") == word


@pytest.mark.parametrize("text", PATHS)
def test_a_path_is_read_as_it_was_typed(text: str) -> None:
    for key, verb in (("adaptors", "evaluate"), ("teacher.path", "evaluate")):
        cfg = compose_config(verb, [quoted(f"{key}={text}", config=verb)])
        assert str(OmegaConf.select(cfg, key)) == text


@pytest.mark.parametrize(
    "word",
    [
        "prompt='a cat'",
        'prompt="a, b"',
        "prompt=null",
        "prompt=",
        "output=[a]",
        "output=a/b.png",
        "steps=8",
        "adaptor=resnet",
        "schedule=clock2",
        "device=cuda:1",
        "teacher=sd15",
        "~steps",
        "-m",
    ],
)
def test_what_is_right_already_stays(word: str) -> None:
    assert quoted(word, config="generate") == word


def test_commas_are_sweeps_with_m() -> None:
    assert quoted("prompt=a,b", multirun=True, config="generate") == "prompt=a,b"
    assert quoted("schedule=2,4", multirun=True, config="generate") == "schedule=2,4"
