"""Training of CLIP tokenizers, for text encoders that have no published one."""

import json
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation


def train_tokenizer(folder: Path, texts: Iterable[str], length: int) -> CLIPTokenizer:
    """Trains a CLIP tokenizer in which every word that occurs at least twice in the texts is a single token.

    All printable ASCII characters are in the vocabulary, so any English text can be encoded.

    Args:
        folder: Folder for `vocab.json` and `merges.txt`.
        texts: Training texts.
        length: Number of tokens to which texts are padded and truncated.

    Returns:
        The tokenizer. It is the same on every call.
    """
    learned = _byte_pairs([*CHARACTERS, *texts])
    # The special tokens must be last: CLIP text models pool at the position of the highest id, the end token.
    characters = sorted(word for word in learned["vocab"] if len(word.removesuffix("</w>")) == 1)
    merged = [word for word in sorted(learned["vocab"], key=learned["vocab"].get) if word not in characters]
    vocabulary = [*characters, *merged, "<|startoftext|>", "<|endoftext|>"]
    merges = [" ".join(pair) for pair in learned["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return CLIPTokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), model_max_length=length)


def _byte_pairs(texts: list[str]) -> dict[str, Any]:
    """Learns byte-pair merges until words are single tokens; returns the model's `vocab` and `merges`.

    Merges of equal frequency are ordered by the ids of their parts. The trainer numbers the ends of words in the order
    of a hash table, another one in every process, unless they are given.
    """
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        min_frequency=2,
        end_of_word_suffix="</w>",
        initial_alphabet=list(CHARACTERS),
        special_tokens=[f"{character}</w>" for character in CHARACTERS],
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    learned: dict[str, Any] = json.loads(bpe.to_str())["model"]
    return learned
