"""Who is on these photographs? python -m jaguar_kit identify --backbone miewid --catalogue DIR --queries DIR --out DIR

`identify` goes from folders to answers, a step after the other:

    asked.py         settles what was asked for, and by which model
    photographs.py   finds the photographs (facts.py, field_tables.py), and the animals on them (animals.py)
    ledger.py        knows those of earlier weeks again (marks.py), and what people said of them (decisions.py) and of
                     individuals (individuals.py), in tables (written.py)
    season.py        reads (reading.py) and embeds them (albums.py), each once (kept.py), finds encounters
                     (encounters.py), chooses evidence (evidence.py), such as matching spots (likeness.py), and learns
                     a head on the catalogue (learned.py)
    answers.py       ranks the animals for each photograph, and groups those that are new (grouping.py)
    trust.py         fits on the catalogue (confidence.py) how probable names and new animals are (odds.py)
    writing.py       writes tables (captures.py), the report, and the page to review (review.py, overview.py)
    exports.py       writes what the field's programs read, of these answers or of earlier ones

Each uses only what stands above it, and what stands in brackets beside it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from jaguar_kit import (
    ANSWERS,
    KitError,
    __version__,
    claim,
    echo,
    only_one,
    pick_device,
    refuse_other_contents,
)

from .animals import Wanted
from .answers import answer_table, rank_animals
from .asked import model_of, settings_to_keep, settled
from .captures import PHOTOGRAPHS, carry_over, keep_cameras, keep_photographs, read_kept_cameras, with_stations
from .cards import write_cards
from .decisions import SETTINGS, Decisions, earlier_settings
from .exports import Export, export_tables
from .field_tables import read_cameras
from .learned import MODES
from .ledger import Ledger, open_ledger, take_up, weeks_until
from .photographs import Photographs, find_photographs
from .season import read_season
from .trust import trust_in
from .writing import closing_lines, write_close, write_season

ANY = Wanted()


def identify(
    weights: str | Path | None = None,
    catalogue: str | Path | None = None,
    queries: str | Path | None = None,
    out: str | Path = "answers",
    device: str = "auto",
    backbone: str | None = None,
    local: bool | None = None,
    sure: float | None = None,
    fresh: float | None = None,
    share_new: float | None = None,
    previous: str | Path | None = None,
    decisions: Sequence[str | Path] = (),
    cameras: str | Path | None = None,
    export: Export | None = None,
    boxes: Wanted = ANY,
    cards: int = 0,
    head: str | None = None,
) -> pd.DataFrame:
    """Names the animals on photographs by those of a catalogue; writes answers.csv, review.html and more into `out`.

    weights: a run's folder or weights.safetensors; or backbone: a name or a safetensors file, whose features are used
    as they are, or through a head that is learned on the catalogue (head: auto, never, always). local: matching spots
    beside the likeness. catalogue: a folder of identity/*.jpg, one in a competition's layout, or a CSV with path and
    identity. queries: a folder of photographs, or a CSV with path. previous: an earlier folder of answers, whose
    decisions the catalogue grows by; what is not given is taken from it. cameras: a CSV of where cameras stood and
    when. export: tables for the field's programs. boxes: where animals are, each of which is named for itself;
    photographs that show none are set aside. cards: how many to write.

    An encounter is asked for once, by the mean over its photographs. So is each of the catalogue, with and without its
    identity there; from that and from the photographs come the share of new animals (or share_new), and how probable a
    name and a new animal are. class: sure from probability `sure` on (0.95), new from probability `fresh` on (0.75),
    else look. Where each animal has one image, nothing is claimed. Returns the answers, a row for each photograph.
    """
    out, begun = Path(out), time.time()
    with only_one(out.resolve()):
        refuse_answers(out)
        earlier = Path(previous) if previous is not None else None
        model = {} if weights is None and backbone is None else {"weights": weights, "backbone": backbone}
        given = {"catalogue": catalogue, "queries": queries, "local": local, "sure": sure, "new": fresh, "head": head}
        given |= {"share_new": share_new, "box_confidence": boxes.confidence, "box_margin": boxes.margin}
        chosen = settled(given, model, earlier_settings(earlier))
        device, (recipe, identities) = pick_device(device), model_of(chosen["weights"], chosen["backbone"])
        ledger, photographs, notes = known_again(chosen, recipe.data.masks, earlier, decisions, out, boxes, cameras)
        season = read_season(recipe, photographs, chosen["local"], device, chosen["box_margin"], chosen["head"])
        refuse_one_animal(season.known.identity, chosen["catalogue"])
        ranked = rank_animals(season, ledger.decisions)
        trust = trust_in(season, ranked, identities, chosen)
        answers, pictures = answer_table(season, ranked, trust.odds, ledger.decisions, *trust.levels, trust.weak)
        before, ledger = ledger.sure, ledger.with_season(season, answers)
        notes, headline = notes + ledger.notes_since(before), trust.headline(answers)
        claim(out, ANSWERS)
        settings = settings_to_keep(chosen, photographs.asked[0], earlier, ledger.week, season.learned.kept)
        keep_cameras(out, cameras, earlier)
        keep_photographs(out, earlier, season, answers)
        written = write_season(out, season, trust, headline, answers, pictures, ledger, settings, notes)
        tell_end(headline, written, (time.time() - begun) / max(len(answers), 1))
        tell_written(write_cards(out, recipe, season, answers, pictures, cards, device))
        tell_written(export_tables(out, export, empty=ledger.decisions.nothing) if export else [])
        return answers


def known_again(
    chosen: Mapping[str, Any],
    masks: str | None,
    earlier: Path | None,
    decisions: Sequence[str | Path],
    out: Path,
    boxes: Wanted,
    cameras: str | Path | None,
) -> tuple[Ledger, Photographs, list[str]]:
    """The ledger of earlier weeks, the photographs that are asked about, and what is to be said of both."""
    look = boxes.look(chosen["box_confidence"])  # what is wrong there is told before any work, and with cameras, too
    stations = read_cameras(Path(cameras))[0] if cameras is not None else earlier and read_kept_cameras(earlier)
    ledger, said = open_ledger(earlier, [Path(path) for path in decisions], out)
    photographs = find_photographs(chosen["catalogue"], chosen["queries"], masks, Decisions.none(), look)
    root, asked = photographs.asked
    photographs = replace(photographs, asked=(root, with_stations(asked, stations)))
    ledger, photographs = take_up(ledger, photographs)
    notes = [*said, *photographs.notes]
    for note in notes:
        echo(f"  note: {note}")
    return ledger, photographs, notes


def close_season(
    previous: str | Path, out: str | Path = "season", decisions: Sequence[str | Path] = (), review: bool = False
) -> pd.DataFrame:
    """Takes the last decisions in, without new photographs, and writes the tables and the report of all weeks.

    previous: the last folder of answers; decisions: files of decisions that lie elsewhere; review: writes the page on
    which the decisions of all weeks can be corrected. Returns the sightings.
    """
    out, earlier = Path(out), Path(previous)
    with only_one(out.resolve()):
        refuse_answers(out)
        before = earlier_settings(earlier)
        ledger, notes = open_ledger(earlier, [Path(path) for path in decisions], out)
        notes += ledger.decisions.notes(ledger.catalogue.values())
        for note in notes:
            echo(f"  note: {note}")
        claim(out, ANSWERS)
        settings = {**before, "jaguar_kit": __version__, "previous": str(earlier.resolve())}
        carry_over(out, earlier, PHOTOGRAPHS)
        keep_cameras(out, None, earlier)
        weeks = [(week, folder) for week, folder, _ in weeks_until(earlier)[0]] if review else []
        written = write_close(out, ledger, {**settings, "week": ledger.week, "closed": True}, notes, weeks)
    for line in (*closing_lines(ledger), *(f"wrote {path}" for path in written)):
        echo(f"  {line}")
    return ledger.sightings


def export_earlier(
    previous: str | Path, export: Export, decisions: Sequence[str | Path] = (), cameras: str | Path | None = None
) -> list[Path]:
    """Writes tables for the field's programs into an earlier folder of answers, by the decisions that it has by now."""
    earlier = Path(previous)
    earlier_settings(earlier)  # refuses what is no folder of answers
    keep_cameras(earlier, cameras, None)
    ledger, _ = open_ledger(earlier, [Path(path) for path in decisions], earlier)
    written = export_tables(earlier, export, ledger.decisions)
    tell_written(written)
    return written


# what was asked for


def refuse_answers(out: Path) -> None:
    """Refuses a folder that holds answers already, or anything else."""
    if (out / "answers.csv").exists() or ((out / SETTINGS).is_file() and earlier_settings(out).get("closed")):
        raise KitError(f"{out}: holds answers already; choose a new --out, so that nothing is overwritten")
    refuse_other_contents(out, ANSWERS)


def refuse_one_animal(identity: pd.Series, catalogue: str) -> None:
    if identity.nunique() < 2:
        raise KitError(f"{catalogue}: only {identity.iloc[0]!r} can be read (expected two identities or more)")


# what is told at the end


def tell_end(headline: Sequence[str], written: Sequence[Path], seconds: float) -> None:
    """The headline, where what was written lies, and the time; seconds: of a photograph."""
    for line in headline:
        echo(f"  {line}")
    tell_written(written)
    echo(f"  {seconds * 1000 / 60:.1f} min for a thousand photographs here")


def tell_written(written: Sequence[Path]) -> None:
    for path in written:
        echo(f"  wrote {path}")


# the command


def identify_command(argv: Sequence[str] | None = None) -> int:
    """`python -m jaguar_kit identify --backbone NAME | --weights RUN --catalogue DIR --queries DIR --out DIR`."""
    parser = argparse.ArgumentParser(
        prog="jaguar_kit identify",
        description="Names the animals on photographs by a catalogue of known ones, and tells which may be new.",
    )
    parser.add_argument("--weights", help="a run's folder, such as runs/final/default/seed42")
    parser.add_argument("--backbone", help="features without training: miewid, any name of timm, or a safetensors file")
    parser.add_argument("--local", action="store_true", default=None, help="matching spots beside the likeness; slower")
    parser.add_argument("--head", choices=MODES, help="a layer learned on the catalogue, where it helps (auto)")
    parser.add_argument("--catalogue", help="folder of identity/*.jpg, or a CSV with path and identity")
    parser.add_argument("--queries", help="folder of photographs, or a CSV with path")
    parser.add_argument("--out", help="new folder for answers.csv, review.html and report.html")
    parser.add_argument("--previous", help="last week's folder of answers: goes on with its catalogue and decisions")
    parser.add_argument(
        "--decisions", nargs="*", default=[], metavar="CSV", help="further files that the page exported"
    )
    parser.add_argument(
        "--close", action="store_true", help="takes the last decisions of --previous in, without new photographs"
    )
    parser.add_argument(
        "--review", action="store_true", help="the same, with a page on which decisions of all weeks can be corrected"
    )
    parser.add_argument("--sure", type=float, help="least probability of a sure name (0.95)")
    parser.add_argument("--new", type=float, help="least probability of a new animal (0.75)")
    parser.add_argument(
        "--share-new",
        type=float,
        help="share of photographs that show new animals, where you know it (told by the photographs themselves)",
    )
    parser.add_argument(
        "--boxes",
        nargs="*",
        default=[],
        metavar="FILE",
        help="boxes around animals: MegaDetector's JSON, COCO, or a CSV with path and bbox; or the word masks",
    )
    parser.add_argument("--box-confidence", type=float, help="least confidence of a detector's box (0.2)")
    parser.add_argument("--box-margin", type=float, help="margin of a crop around a box, as a share of its sides (0.1)")
    parser.add_argument(
        "--all", action="store_true", help="asks for photographs without an animal too, which boxes set aside"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--cameras", help="CSV with station, start and end, as in Camtrap DP's or camtrapR's tables")
    parser.add_argument(
        "--export", help="tables for secr,rmark,camtrapr,camtrapdp or all; with --previous alone of that week"
    )
    parser.add_argument("--occasion", type=int, default=1, help="days of an occasion (1)")
    parser.add_argument("--flank", default="both", help="captures of one flank: left or right (both)")
    parser.add_argument(
        "--with-catalogue", action="store_true", help="the catalogue's dated photographs are captures too"
    )
    parser.add_argument("--cards", type=int, default=0, help="of how many photographs to look at to write evidence (0)")
    parser.add_argument("--zone", default="", help="what the cameras' clocks are apart from UTC, such as -03:00")
    given = parser.parse_args(argv)
    export = None
    if given.export is not None:
        export = Export.of(given.export, given.occasion, given.flank, given.with_catalogue, given.zone)
    if export and given.previous and given.out is None and given.catalogue is None and given.queries is None:
        export_earlier(given.previous, export, given.decisions, given.cameras)
        return 0
    if given.out is None:
        raise KitError("--out: is missing (expected a new folder for the answers)")
    if given.close or given.review:
        check_close(given, "--review" if given.review else "--close")
        close_season(given.previous, given.out, given.decisions, given.review)
        return 0
    identify(
        given.weights, given.catalogue, given.queries, given.out, given.device, given.backbone, given.local,
        given.sure, given.new, given.share_new, given.previous, given.decisions, given.cameras, export,
        Wanted(given.boxes, given.box_confidence, given.box_margin, given.all),
        max(0, given.cards), given.head,
    )  # fmt: skip
    return 0


def check_close(given: argparse.Namespace, asked: str) -> None:
    """Refuses what has no meaning where a season is closed or reviewed."""
    if given.previous is None:
        raise KitError(f"--previous: is missing (expected the last folder of answers with {asked})")
    for name in (
        *("weights", "backbone", "local", "head", "catalogue", "queries", "sure", "new", "share_new"),
        *("box_confidence", "box_margin"),
    ):
        if getattr(given, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise KitError(
                f"{option}: {getattr(given, name)} (expected nothing with {asked}, which asks for no photograph)"
            )
