"""Commands as somebody would type them who wants to break them: one sentence, exit status 2, and nothing left behind.

Nothing of a teacher is loaded: the mistake shows in what is cheap to look at.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.commands import run

from clockwork.teachers import loading

FILES: dict[str, bytes] = {
    "blank.txt": b"\n \n\t\n",
    "empty.txt": b"",
    "two.txt": b"a cat\na dog\n",
    "binary.csv": bytes(range(256)) * 20,
    "columns.csv": b"x,y\n1,2\n",
    "notes.png": b"hello",
    "images/a.png": b"no image",
    "images/a.txt": b"a caption",
    "texts/a.txt": b"a caption",
    "adaptor/config.json": b"{}",
    "teacher/model_index.json": b"[]",
    "flux/model_index.json": b'{"_class_name": "FluxPipeline"}',
    "object.json": b"{}",
    "notes.json": b"notes",
    "list.yaml": b"- 3\n",
    "broken.yaml": b"a: [",
    "rows/rows.jsonl": b"nonsense\n{}\n",
}
CAPTIONS = "train prompts=captions prompts.path={place}/"
IMAGES = "train data=noised images=folder images.path={place}/"
# The command, with {place} for the folder of the files, and what the sentence says.
CASES = {
    CAPTIONS + "empty.txt": "empty.txt",
    CAPTIONS + "blank.txt": "blank.txt",
    CAPTIONS + "binary.csv": "binary.csv",
    CAPTIONS + "columns.csv": "columns.csv",
    CAPTIONS + "columns.csv prompts.column=z": "columns.csv",
    CAPTIONS + "images": "images",
    CAPTIONS + "pipe.txt": "pipe.txt",
    CAPTIONS + "two.txt prompts.count=3": "count",
    "train prompts=captions prompts.path=/dev/null": "/dev/null",
    "train prompts=captions prompts.path=/dev/zero": "/dev/zero",
    IMAGES + "images": "a.png",
    IMAGES + "empty": "no images",
    IMAGES + "texts": "no images",
    IMAGES + "two.txt": "no image folder",
    IMAGES + "images images.outside=true": "not an image|outside",
    "train base={place}/adaptor adaptor=linear": "adaptor",
    "train base={place}/nowhere": "nowhere",
    "train base={place}/two.txt": "two.txt",
    "train optimizer._target_=builtins.print": "is no optimizer: use a class of torch.optim",
    "train optimizer._target_=torch.optim.Nope": "there is no torch.optim.Nope",
    "train optimizer._target_=os.system": "os.system",
    "train lr_scheduler._target_=nonexistent.module.Thing": "there is no nonexistent.module.Thing",
    "train lr_scheduler._target_=torch.optim.Adam": "is no lr_scheduler",
    "train +trainer.strategy=telepathy": "trainer.strategy=telepathy is not known to Lightning",
    "train +trainer.max_time=banana": "Lightning refuses the options in trainer.*banana",
    "train callbacks=nothing": "callbacks=nothing",
    "train =8": "has no key",
    "train steps==8": "steps",
    "train output={place}/two.txt/x": "the path of a folder",
    "train output=/dev/null": "the path of a folder",
    "calibrate count=99 prompts=captions prompts.path={place}/two.txt": "more than the 2 captions",
    "calibrate adaptor=resnet": "not fitted in closed form",
    "calibrate schedule=full": "no adaptor step",
    "evaluate adaptor=folder": "adaptor.path",
    "evaluate adaptor=folder adaptor.path={place}/nowhere": "nowhere",
    "evaluate adaptor=folder adaptor.path={place}/adaptor": "adaptor",
    "evaluate adaptor=folder adaptor.path={place}/two.txt": "two.txt",
    "evaluate points=[{adaptor:nothing}]": "nothing",
    "evaluate points=[{rival:nothing}]": "nothing",
    "evaluate points=[{solver:euler}]": "points.0..solver=euler",
    "evaluate points=[{guidance:-1}]": "points.0..guidance=-1",
    "evaluate points=[{prompts:coco}]": "points.0..prompts",
    "evaluate seeds=[1,1]": "seeds",
    "evaluate keep_images=some": "keep_images=some",
    "evaluate +table=99": "99",
    "evaluate +table=3 points=[{}]": "table=3 names its points itself: leave out points",
    "evaluate +table=3 +figure=4": "table=3 names its points itself: leave out figure",
    "generate prompt=a adaptor=linear": "calibrate.py",
    "generate prompt=a output={place}/x.gif": "png file",
    "edit image={place}/notes.png source=a target=b": "not an image that can be read",
    "edit image={place}/images source=a target=b": "no image at",
    "edit image=/dev/zero source=a target=b": "no image at",
    "export adaptor=folder adaptor.path={place}/adaptor": "adaptor",
    "export solver=pndm adaptor=identity": "cannot be exported",
    "report compare rows={place}/rows point={adaptor:x}": "adaptor|no row",
    "report table=77": "77",
    "report +table=3": "pass table=… without",
    "report scale=huge": "scale=huge",
    "score images=folder": "images.path",
    "score images=folder images.path={place}/images": "a.png",
    "score images=folder images.path={place}/nowhere": "nowhere",
    "tables tables=[99]": "no table 99",
    "bench compare={place}/object.json": "object.json",
    "bench compare={place}/notes.json": "notes.json",
    "bench compare={place}/nowhere.json": "nowhere.json",
    "bench output={place}/images": "images",
    "random_teacher architecture=sd15 path={place}/images": "images",
}
OUTPUTS = {"bench": "new.json", "generate": "new.png"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hostile")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe.txt")
    yield folder


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_command_is_one_sentence(
    case: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *words = case.replace("{place}", str(place)).split()
    if command not in ("random_teacher", "score") and "output=" not in case:
        words.append(f"output={place / OUTPUTS.get(command, 'new')}")
    if command == "train" and "prompts=" not in case:
        words.append("prompts.count=100")
    monkeypatch.setattr(loading, "load_teacher", None)
    before = sorted(place.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, command, *words)
    errors = capsys.readouterr().err
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert stopped.value.code == 2 and "Traceback" not in errors
    assert re.search(CASES[case], sentence), sentence
    assert sorted(place.rglob("*")) == before
