"""Meta-World's fifty tasks: a prompt each, and the points of the model that are its object and its goal.

The points are the ones that the environment itself observes (`_get_pos_objects`) and rewards (`_target_pos`).
Where a task has two objects (hammer and nail, stick and thermos), the point is the first: the one that the hand
holds. `tests/tasks/test_metaworld.py` compares every one of them with the environment.
"""

from typing import NamedTuple

from pixeltraj.task import Keypoint


class Entry(NamedTuple):
    name: str
    prompt: str
    thing: Keypoint
    goal: Keypoint
    horizon: int = 75
    """Decisions; the demonstrator, with noise, needs fewer in nearly all episodes that it solves."""


def _body(target: str | int, *offset: float) -> Keypoint:
    return _point("body", target, offset)


def _site(target: str, *offset: float) -> Keypoint:
    return _point("site", target, offset)


def _geom(target: str) -> Keypoint:
    return _point("geom", target, ())


def _point(kind: str, target: str | int, offset: tuple[float, ...]) -> Keypoint:
    return Keypoint("", kind, target, offset or (0.0, 0.0, 0.0))  # type: ignore[arg-type]


_LONG = 125
_GOAL = _site("goal")
_HOLE = _site("hole")
_PUCK = _body("obj")
_PUCK_GEOM = _geom("objGeom")
_PLATE = _geom("puck")
_NUT = _site("RoundNut-8")
_PEG = _site("pegGrasp")
_BIN = _body("bin_goal")
_BUTTON = _body("button", 0.0, -0.193, 0.0)
_TOP_BUTTON = _body("button", 0.0, -0.193, 0.000154)
_HANDLE = _geom("handle")
_LOCKED = _body("door", 0.0, -0.158, -0.039)
_UNLOCKED = _body("door", 0.1, -0.158, 0.061)

TABLE = (
    # The six that the embedded base has seen
    Entry("push-v3", "push the red puck to the goal on the table", _PUCK, _GOAL),
    Entry("sweep-into-v3", "sweep the puck into the square hole in the table", _PUCK, _GOAL),
    Entry("coffee-push-v3", "push the mug under the coffee machine", _PUCK, _site("mug_goal")),
    Entry("push-wall-v3", "push the puck around the wall to the goal", _PUCK_GEOM, _GOAL),
    Entry("door-open-v3", "open the door by its handle", _HANDLE, _GOAL),
    Entry("drawer-close-v3", "push the drawer shut", _body("drawer_link", 0.0, -0.16, 0.05), _GOAL),
    # Pucks, balls and things to carry
    Entry("reach-v3", "move the gripper to the goal in the air", _PUCK, _GOAL),
    Entry("reach-wall-v3", "move the gripper past the wall to the goal", _PUCK, _GOAL),
    Entry("push-back-v3", "pull the block back to the goal near the robot", _PUCK_GEOM, _GOAL, _LONG),
    Entry("pick-place-v3", "pick up the puck and lift it to the goal in the air", _PUCK, _GOAL),
    Entry("pick-place-wall-v3", "pick up the puck and lift it over the wall to the goal", _PUCK_GEOM, _GOAL),
    Entry("pick-out-of-hole-v3", "pick the puck out of the hole and lift it to the goal", _PUCK, _GOAL, _LONG),
    Entry("shelf-place-v3", "pick up the block and put it onto the shelf", _PUCK, _GOAL, _LONG),
    Entry("bin-picking-v3", "pick the block out of one bin and drop it into the other", _PUCK, _BIN, _LONG),
    Entry("hand-insert-v3", "put the block into the hole in the table with the gripper", _PUCK, _GOAL),
    Entry("sweep-v3", "sweep the block off the side of the table", _PUCK, _GOAL),
    Entry("basketball-v3", "pick up the basketball and drop it through the hoop", _body("bsktball"), _GOAL),
    Entry("soccer-v3", "push the ball into the soccer goal", _body("soccer_ball"), _GOAL),
    Entry("box-close-v3", "pick up the lid and close the box with it", _body("top_link"), _GOAL, _LONG),
    Entry("coffee-pull-v3", "pull the mug away from the coffee machine", _PUCK, _site("mug_goal")),
    # Tools, nuts and pegs
    Entry("hammer-v3", "pick up the hammer and drive the nail into the wall", _body("hammer"), _GOAL),
    Entry("stick-push-v3", "pick up the stick and push the thermos with it to the goal", _body("stick"), _GOAL),
    Entry("stick-pull-v3", "hook the stick into the thermos and pull it to the goal", _body("stick"), _GOAL, _LONG),
    Entry("assembly-v3", "pick up the wrench and put its ring over the peg", _NUT, _body("peg", 0.0, 0.0, 0.05)),
    Entry("disassemble-v3", "lift the ring of the wrench off the peg", _NUT, _body("peg", 0.0, 0.0, 0.12), _LONG),
    Entry("peg-insert-side-v3", "pick up the peg and insert it sideways into the hole", _PEG, _GOAL, _LONG),
    Entry("peg-unplug-side-v3", "pull the peg sideways out of its hole", _site("pegEnd"), _GOAL, _LONG),
    # Buttons
    Entry("button-press-v3", "press the button on the front of the box", _BUTTON, _HOLE),
    Entry("button-press-wall-v3", "reach past the wall and press the button on the front of the box", _BUTTON, _HOLE),
    Entry("button-press-topdown-v3", "press the button down from above", _TOP_BUTTON, _HOLE),
    Entry("button-press-topdown-wall-v3", "press the button behind the wall down from above", _TOP_BUTTON, _HOLE),
    Entry(
        "coffee-button-v3",
        "press the button of the coffee machine",
        _site("buttonStart"),
        _body("coffee_machine", 0.0, -0.19, 0.3),
    ),
    # Doors, drawers, windows and plates
    Entry("door-close-v3", "push the open door shut", _HANDLE, _GOAL),
    Entry("door-lock-v3", "turn the lock of the door down", _site("lockStartLock"), _LOCKED, _LONG),
    Entry("door-unlock-v3", "turn the lock of the door up", _site("lockStartUnlock"), _UNLOCKED),
    Entry("drawer-open-v3", "pull the drawer open", _body("drawer_link", 0.0, -0.16, 0.0), _GOAL),
    Entry("window-open-v3", "slide the window open to the right", _site("handleOpenStart"), _GOAL),
    Entry("window-close-v3", "slide the window shut to the left", _site("handleCloseStart"), _GOAL),
    Entry("plate-slide-v3", "slide the plate forward into the cabinet", _PLATE, _GOAL),
    Entry("plate-slide-side-v3", "slide the plate sideways into the cabinet", _PLATE, _GOAL),
    Entry("plate-slide-back-v3", "slide the plate back out of the cabinet", _PLATE, _GOAL),
    Entry("plate-slide-back-side-v3", "slide the plate sideways out of the cabinet", _PLATE, _GOAL),
    # Handles, levers, dials and faucets
    Entry("handle-press-v3", "press the handle down", _site("handleStart"), _site("goalPress")),
    Entry("handle-press-side-v3", "press the handle down from the side", _site("handleStart"), _site("goalPress")),
    Entry("handle-pull-v3", "pull the handle up", _site("handleRight"), _site("goalPull")),
    Entry("handle-pull-side-v3", "pull the handle up from the side", _site("handleCenter"), _site("goalPull"), _LONG),
    Entry("lever-pull-v3", "pull the lever up", _site("leverStart"), _GOAL),
    Entry("dial-turn-v3", "turn the dial", _body(34, 0.0, -0.05, 0.0), _GOAL),
    Entry("faucet-open-v3", "turn the faucet open", _site("handleStartOpen", 0.0, 0.0, -0.01), _site("goal_open")),
    Entry("faucet-close-v3", "turn the faucet shut", _site("handleStartClose", 0.0, 0.0, -0.01), _site("goal_close")),
)
