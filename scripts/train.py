"""Trains an adaptor, `python scripts/train.py adaptor=resnet schedule=clock2`, or a teacher, `objective=recover`."""

from clockwork.experiments.cli import entry

main = entry("train")

if __name__ == "__main__":
    main()
