"""`pixeltraj report RUN`: one page that shows where the pipeline loses, and report.json with the figures in it.

RUN/  demos/ (or store/)  lora/  decoder/  imagined/   what is reported on; each can be given by itself
      audit/              what `pixeltraj audit` wrote, where it was run
      eval/  seconds.json  audit.json                  where there are any; what is not there is "not measured"
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from pixeltraj.base import Base
from pixeltraj.cli.report_audit import Audited, add_checks
from pixeltraj.cli.report_figures import checked, figures, models_of, open_imagined, open_real
from pixeltraj.cli.report_replay import act, draw_replays, make_cases, read_real
from pixeltraj.decode.decoder import CONFIG, Actions, Decoder
from pixeltraj.decode.own_reward import Rewards, decoder_for
from pixeltraj.decode.yardstick import span_of
from pixeltraj.errors import PixeltrajError
from pixeltraj.eval.cases import chosen, ranked
from pixeltraj.eval.losses import losses
from pixeltraj.eval.player import player
from pixeltraj.eval.report import write_report
from pixeltraj.files import provenance, read_json, write_json
from pixeltraj.finetune.vae import psnr
from pixeltraj.generator import Generator


@dataclass(frozen=True)
class Config:
    run: Annotated[Path, tyro.conf.Positional]
    """A folder as `pixeltraj demo` leaves it; report.json and report.html are written into it."""
    out: Path | None = None
    """Where they are written instead."""
    real: Path | None = None
    """The rendered store that was imagined from; RUN/demos or RUN/store if not given."""
    imagined: Path | None = None
    """The imagined store; RUN/imagined if not given."""
    decoder: Path | None = None
    """RUN/decoder if not given."""
    lora: Path | None = None
    """RUN/lora if not given and there is one."""
    base: str | None = None
    """A diffusers folder, single file or hub id; what RUN/config.json names, else the embedded base."""
    audit: Path | None = None
    """What `pixeltraj audit` wrote; RUN/audit if not given and there is one."""
    trajectories: int = 24
    """Imagined trajectories that the page plays at most, from the worst to the best."""
    frames: int = 320
    """Their frames at most: each is there three times, about 14 kB in all."""
    seed: int = 0
    """Of the real pieces that an audit made now compares with."""


def run(config: Config) -> None:
    path = report(config)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, one file that needs nothing else")


def report(config: Config) -> Path:
    """Write report.json and report.html; the page's path."""
    if config.trajectories < 1 or config.frames < 1:
        raise PixeltrajError("--trajectories and --frames must be at least 1")
    if not config.run.is_dir():
        raise PixeltrajError(f"no run at {config.run}: `pixeltraj demo --out {config.run}` makes one")
    real = open_real(config.run, config.real)
    imagined = open_imagined(config.imagined or config.run / "imagined", real)
    audited = Audited.find(config.audit or config.run / "audit", given=config.audit is not None, imagined=imagined)
    how = imagined.attributes["provenance"]
    decoder, models = load(config, real.path, how.get("rewards", "learned"), how.get("actions", "read"))
    if decoder.task.name != real.task.name:
        raise PixeltrajError(f"the decoder reads {decoder.task.name}, {real.path} holds {real.task.name}")
    if how["generator"] != decoder.generator.identity:
        raise PixeltrajError(
            f"{imagined.path} was imagined by another generator than the decoder reads; imagine it again: "
            f"`pixeltraj imagine {real.task.name} --from {real.path} --out NEW --decoder DECODER`"
        )
    span = span_of(real)
    cases = make_cases(imagined, real, span)
    add_checks(cases, audited)
    order = ranked(cases)
    shown = chosen(order, config.trajectories, config.frames)
    draw_replays(shown, real)
    read = read_real(decoder, cases)
    content: dict[str, Any] = {
        **figures(config.run, real, imagined, checked(config.run, real, imagined, config.seed), models),
        "seed": how["seed"],
        "versions": provenance()["versions"],
        "vae": psnr(decoder.generator.base.vae, real, real.split()[1]),
        **losses(real.task, span, cases, read, act(read, cases, real)),
        "audit": audited.summary if audited else None,
    }
    out = config.out or config.run
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "report.json", content)
    return write_report(out, player(real.task, span, shown, order))


def load(config: Config, real: Path, rewards: Rewards, actions: Actions) -> tuple[Decoder, dict[str, Any]]:
    """The decoder with its generator, and what the files say of them. rewards, actions: as what was imagined."""
    folder = config.decoder or config.run / "decoder"
    lora = config.lora or (config.run / "lora" if (config.run / "lora").is_dir() else None)
    if not (folder / CONFIG).is_file():
        with_lora = f" --lora {lora}" if lora else ""
        raise PixeltrajError(
            f"no decoder at {folder}: `pixeltraj decode train {real} --out {folder}{with_lora}` makes one"
        )
    base = Base.load(config.base or named_base(config.run))
    models = models_of(base, lora, folder)
    return decoder_for(rewards).load(folder, Generator.load(base, lora), actions=actions), models


def named_base(run: Path) -> str | None:
    """The base that the run's settings name."""
    path = run / "config.json"
    said = read_json(path, "run's settings").get("base") if path.is_file() else None
    return None if said == "None" else said  # a demo keeps its settings as text
