"""Imagefolder: PNGs that are the store's frames to the bit, with one line of metadata each."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixeltraj.errors import PixeltrajError
from pixeltraj.grid import Grid
from pixeltraj.render.exchange.imagefolder import export_imagefolder
from pixeltraj.store import Store


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]


def frames_of(image: Path, k: int) -> np.ndarray:
    with Image.open(image) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGB", (480, 96 * k // 5))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1
    return Grid(k).to_frames(pixels[None])[0]


@pytest.mark.parametrize(("k", "every", "heldout"), [(5, 1, False), (10, 4, False), (5, 3, True)])
def test_every_image_is_its_window_of_the_store(
    store: Store, tmp_path: Path, k: int, every: int, heldout: bool
) -> None:
    count = export_imagefolder(store, tmp_path / "out", k, every, heldout)
    folder = tmp_path / "out" / ("test" if heldout else "train")
    metadata = lines(folder)
    assert [folder] == list((tmp_path / "out").iterdir())
    assert {p.name for p in folder.iterdir()} == {"metadata.jsonl"} | {str(m["file_name"]) for m in metadata}
    episodes = store.split()[int(heldout)]
    expected = [(e, s) for e in episodes for s in range(0, store.episodes[e]["frames"], every)]
    assert [(m["episode"], m["start"]) for m in metadata] == expected and len(expected) == count
    for line in metadata:
        assert line["text"] == store.task.prompt and line["k"] == k
        start = int(str(line["start"]))
        whole = store.trajectory(int(str(line["episode"]))).frames
        assert whole is not None
        wanted = whole[np.minimum(np.arange(start, start + k), len(whole) - 1)]
        np.testing.assert_array_equal(frames_of(folder / str(line["file_name"]), k), wanted)


def test_the_layout_of_instruct_pix2pix_has_the_first_frame_in_every_tile(store: Store, tmp_path: Path) -> None:
    export_imagefolder(store, tmp_path / "out", 5, every=6, columns="instruct-pix2pix")
    folder = tmp_path / "out" / "train"
    for line in lines(folder):
        assert line["edit_prompt"] == store.task.prompt
        after = frames_of(folder / str(line["edited_image_file_name"]), 5)
        before = frames_of(folder / str(line["input_image_file_name"]), 5)
        np.testing.assert_array_equal(before, np.broadcast_to(after[:1], after.shape))


def test_it_is_written_whole_or_not_at_all(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", fail)
        with pytest.raises(OSError, match="disk full"):
            export_imagefolder(store, tmp_path / "out", 5)
    assert list(tmp_path.iterdir()) == []
    export_imagefolder(store, tmp_path / "out", 5, every=10)
    with pytest.raises(PixeltrajError, match="exists already"):
        export_imagefolder(store, tmp_path / "out", 5)
    for k, every, message in ((7, 1, "k must be 5"), (5, 0, "--every must be at least 1")):
        with pytest.raises(PixeltrajError, match=message):
            export_imagefolder(store, tmp_path / "new", k, every)
    assert not (tmp_path / "new").exists()
