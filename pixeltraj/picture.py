"""Picture: imagined trajectories with the keypoints that were decoded, above what really happened.

A PNG with all frames of all examples, and beside it a GIF and an MP4 of the same. Discs are decoded keypoints, rings
are true ones; a keypoint has one colour throughout.
"""

from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pixeltraj.camera import FRAME_SIZE
from pixeltraj.errors import PixeltrajError
from pixeltraj.files import write_whole
from pixeltraj.film import write_gif, write_mp4
from pixeltraj.grid import COLUMNS
from pixeltraj.task import Task
from pixeltraj.trajectory import Trajectory

KINDS = (".png", ".gif", ".mp4")
"""All of them are written, beside each other."""
SCALE = 3
"""Every pixel of a frame becomes SCALE x SCALE."""
CELL = SCALE * FRAME_SIZE
COLOURS = (
    "#ffd60a", "#ff6ad5", "#22d3ee", "#ff8c1a", "#7cff4f", "#9d7bff", "#ffffff", "#3b82f6", "#ff4d4d", "#14b88a",
)  # fmt: skip
"""One a keypoint, in the task's order; they begin anew after the last."""

PAPER, PANEL, LINE, MUTED, INK, ACCENT = "#11161d", "#171e27", "#2b3644", "#94a3b5", "#e9eef5", "#ffb454"
MARGIN, GAP, GUTTER, TITLE = 24, 6, 34, 34
DISC, RING = 4, 7  # radii
FINEST = 4  # marks are drawn so many times larger, then reduced


def draw(
    imagined: Sequence[Trajectory],
    real: Sequence[Trajectory] | None,
    task: Task,
    path: Path,
    milliseconds: int = 450,
) -> Path:
    """Write the PNG, the GIF and the MP4: `path` is one of them, the others stand beside it. Returns the GIF's path.

    imagined, real: examples, all of which are drawn; real[i] goes on from the same state as imagined[i]. Frames
    (T+1, 84, 84, 3) uint8 and keypoints (T+1, N, 3) of each; T may differ. milliseconds: each frame of GIF and MP4.
    Raises PixeltrajError where there is nothing to draw, and where `path` is called otherwise.
    """
    require_kind(path)
    if not imagined:
        raise PixeltrajError("no imagined trajectories to draw; imagine at least one")
    if real is not None and len(real) != len(imagined):
        raise PixeltrajError(f"{len(imagined)} imagined trajectories beside {len(real)} real ones; give one for each")
    if any(t.frames is None for t in (*imagined, *(real or ()))):
        raise PixeltrajError("a trajectory without frames cannot be drawn; render its store first")
    examples = [(a, b) for a, b in zip_longest(imagined, real or ())]
    longest = max(len(t.keypoints) for pair in examples for t in pair if t is not None)
    write_whole(path.with_suffix(".png"), lambda beside: _sheet(examples, longest, task).save(beside, compress_level=4))
    gif, mp4 = path.with_suffix(".gif"), path.with_suffix(".mp4")
    moments = [_moment(examples, i, task) for i in range(longest)]
    kept = (*COLOURS, PAPER, PANEL, MUTED, INK, ACCENT)
    write_whole(gif, lambda beside: write_gif(moments, beside, milliseconds, kept))
    write_whole(mp4, lambda beside: write_mp4(moments, beside, milliseconds))
    return gif


def require_kind(path: Path) -> None:
    """Raises PixeltrajError where `draw` could not tell from `path` how to call what it writes."""
    if path.suffix not in KINDS:
        raise PixeltrajError(f"the picture {path} must be a .png, .gif or .mp4; all three are written")


Example = tuple[Trajectory, Trajectory | None]


def _sheet(examples: list[Example], longest: int, task: Task) -> Image.Image:
    """All imagined frames: blocks of up to five columns, what really happened in the row below."""
    columns = min(longest, COLUMNS)
    strip = GUTTER + columns * (CELL + GAP) - GAP
    width = strip + 2 * MARGIN
    header = _header(task, width, real=examples[0][1] is not None)
    rows = 1 + (examples[0][1] is not None)
    block = TITLE + rows * (CELL + GAP) - GAP
    blocks = [-(-len(imagined.keypoints) // columns) for imagined, _ in examples]
    height = header.height + sum(blocks) * block + len(examples) * MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    sheet.paste(header, (0, 0))
    pen, top = ImageDraw.Draw(sheet), header.height
    for example, count in zip(examples, blocks):
        for first in range(0, count * columns, columns):
            for column in range(columns):
                x = MARGIN + GUTTER + column * (CELL + GAP)
                pen.text((x + CELL / 2, top + TITLE / 2 - 2), _step(first + column), MUTED, _font(18), anchor="mm")
                for row, trajectory in enumerate(example[:rows]):
                    cell = _cell(trajectory, first + column, task, decoded=row == 0)
                    sheet.paste(cell, (x, top + TITLE + row * (CELL + GAP)))
            for row in range(rows):
                label = _sideways(("imagined", "real")[row], (ACCENT, MUTED)[row])
                sheet.paste(label, (MARGIN, top + TITLE + row * (CELL + GAP)))
            top += block
        top += MARGIN
    return sheet


def _moment(examples: list[Example], step: int, task: Task) -> Image.Image:
    """One frame of GIF and MP4: every example at this step, the imagined frame beside the real one."""
    both = examples[0][1] is not None
    pair = (1 + both) * (CELL + GAP) - GAP
    across = min(len(examples), 2 if both else 4)
    width = across * (pair + MARGIN) + MARGIN
    header = _header(task, width, real=both, step=step)
    down = -(-len(examples) // across)
    image = Image.new("RGB", (width, header.height + down * (TITLE + CELL + MARGIN // 2) + MARGIN // 2), PAPER)
    image.paste(header, (0, 0))
    pen = ImageDraw.Draw(image)
    for i, example in enumerate(examples):
        left = MARGIN + i % across * (pair + MARGIN)
        top = header.height + i // across * (TITLE + CELL + MARGIN // 2)
        for column, trajectory in enumerate(example[: 1 + both]):
            x = left + column * (CELL + GAP)
            label, colour = (("imagined", ACCENT), ("real", MUTED))[column]
            pen.text((x + CELL / 2, top + TITLE / 2 - 2), label, colour, _font(18), anchor="mm")
            image.paste(_cell(trajectory, step, task, decoded=column == 0, hold=True), (x, top + TITLE))
    return image


def _cell(trajectory: Trajectory | None, step: int, task: Task, decoded: bool, hold: bool = False) -> Image.Image:
    """One enlarged frame with its keypoints; blank once the trajectory has ended, or its last frame dimmed (`hold`)."""
    assert trajectory is not None and trajectory.frames is not None
    last = len(trajectory.keypoints) - 1
    ended = step > last
    if ended and not hold:
        cell = Image.new("RGB", (CELL, CELL), PANEL)
        pen = ImageDraw.Draw(cell)
        pen.rectangle((0, 0, CELL - 1, CELL - 1), outline=LINE)
        pen.text((CELL / 2, CELL / 2), "ended", MUTED, _font(20), anchor="mm")
        return cell
    at = min(step, last)
    cell = Image.fromarray(trajectory.frames[at]).resize((CELL, CELL), Image.Resampling.NEAREST)
    for i, (column, row, depth) in enumerate(task.camera.project(trajectory.keypoints[at])):
        if depth > 0:
            mark = _mark(COLOURS[i % len(COLOURS)], decoded)
            half = mark.width // 2
            cell.paste(mark, (int(SCALE * column) - half, int(SCALE * row) - half), mark)
    if ended:
        cell = Image.blend(cell, Image.new("RGB", cell.size, PAPER), 0.6)
        _chip(cell, "ended", MUTED)
    elif at and task.reward == "sparse" and trajectory.rewards[at - 1] > 0:
        _chip(cell, "solved: reward 1", ACCENT)
    return cell


def _chip(cell: Image.Image, text: str, colour: str) -> None:
    pen = ImageDraw.Draw(cell)
    width = pen.textlength(text, _font(16)) + 16
    pen.rounded_rectangle((8, CELL - 34, 8 + width, CELL - 8), 6, PAPER)
    pen.text((16, CELL - 21), text, colour, _font(16), anchor="lm")


@cache
def _mark(colour: str, disc: bool) -> Image.Image:
    """An RGBA mark of odd width whose middle pixel is the keypoint."""
    radius = DISC if disc else RING
    size = 2 * (radius + 1) + 1
    middle = FINEST * size / 2
    large = Image.new("RGBA", (FINEST * size, FINEST * size), PAPER + "00")
    pen = ImageDraw.Draw(large)

    def circle(r: float, **style: object) -> None:
        box = (middle - FINEST * r, middle - FINEST * r, middle + FINEST * r, middle + FINEST * r)
        pen.ellipse(box, **style)  # type: ignore[arg-type]

    if disc:
        circle(radius + 1, fill=PAPER)
        circle(radius, fill=colour)
    else:
        circle(radius + 1, outline=PAPER, width=4 * FINEST)
        circle(radius, outline=colour, width=2 * FINEST)
    return large.reduce(FINEST)


def _header(task: Task, width: int, real: bool, step: int | None = None) -> Image.Image:
    """The prompt, what the marks mean, and one mark a keypoint."""
    size = 26
    while size > 15 and _font(size).getlength(f'"{task.prompt}"') > width - 2 * MARGIN:
        size -= 1
    lines: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for i, keypoint in enumerate(task.keypoints):
        name = keypoint.name.replace("_", " ")
        advance = 2 * RING + 8 + _font(17).getlength(name) + 22
        if lines[-1] and x + advance > width - 2 * MARGIN:
            lines.append([])
            x = 0.0
        lines[-1].append((x, name, COLOURS[i % len(COLOURS)]))
        x += advance
    note = f"{task.name} · discs: keypoints decoded from the imagined frames"
    if real:
        note += " · rings: the true ones"
    if step is not None:
        note = f"{task.name} · {_step(step)}"
    header = Image.new("RGB", (width, MARGIN + 76 + 28 * len(lines)), PAPER)
    pen = ImageDraw.Draw(header)
    pen.text((MARGIN, MARGIN + 12), f'"{task.prompt}"', INK, _font(size), anchor="lm")
    pen.text((MARGIN, MARGIN + 46), note, ACCENT if step is not None else MUTED, _font(17), anchor="lm")
    for row, line in enumerate(lines):
        y = MARGIN + 80 + 28 * row
        for x, name, colour in line:
            mark = _mark(colour, True)
            header.paste(mark, (MARGIN + int(x) + 2, y - mark.height // 2), mark)
            pen.text((MARGIN + x + 2 * RING + 8, y), name, INK, _font(17), anchor="lm")
    return header


def _sideways(text: str, colour: str) -> Image.Image:
    label = Image.new("RGB", (CELL, GUTTER), PAPER)
    ImageDraw.Draw(label).text((CELL / 2, GUTTER / 2 - 4), text, colour, _font(20), anchor="mm")
    return label.rotate(90, expand=True)


def _step(step: int) -> str:
    return f"+{step} step{'s' if step > 1 else ''}" if step else "start"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
