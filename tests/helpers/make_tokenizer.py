"""What `test_miniature.py` starts in another process: a tokenizer of the words of `random_weights`."""

import sys
from pathlib import Path

from clockwork.teachers.random_weights import WORDS
from clockwork.teachers.tokenizer import train_tokenizer

if __name__ == "__main__":
    train_tokenizer(Path(sys.argv[1]), [WORDS, WORDS], 77)
