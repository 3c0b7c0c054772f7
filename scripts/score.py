"""FID and CLIP score of captioned images from elsewhere: `python scripts/score.py images=folder images.path=…`."""

from clockwork.experiments.cli import entry

main = entry("score")

if __name__ == "__main__":
    main()
