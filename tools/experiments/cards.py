"""Evidence cards: all that speaks for or against two photographs showing one animal, as a picture and as HTML."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaguar_kit import (
    Count,
    KitError,
    Result,
    RunFolder,
    atomic,
    data_key,
    expand,
    fit_calibration,
    load_competitions,
    open_data,
    pick_device,
    similarity_matrix,
    write_text,
)
from PIL import Image, ImageDraw
from torch import Tensor

from .attribution import METHODS, Question, Scorer, animals_in, overlay, seen_picture, tried
from .diagnostics import Matches
from .figures import INK, OTHER, PAPER, SAME, sheet_font, shortened_to, spots_figure
from .looking import LookContext, look
from .looks import Look, Network
from .page import Page, as_shown
from .scenes import hide_border
from .spots import at_hand, extract_local

SIDE = 240  # px of an image on a card


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a pair; what nobody measured is None, and the card says so."""

    pictures: tuple[Image.Image, Image.Image]
    titles: tuple[str, str]
    facts: tuple[tuple[str, str], ...]  # what it is, and what was found, one line each
    names: tuple[Sequence[tuple[str, float]], Sequence[tuple[str, float]]] | None = None  # of either, with probability
    spots: Image.Image | None = None  # both images with lines between spots that match
    spots_told: str = ""
    maps: tuple[Image.Image, Image.Image] | None = None  # where the likeness rests
    maps_failed: tuple[str, ...] = ()  # the tests that the maps fail
    changed: tuple[Image.Image, Image.Image] | None = None  # both before other scenes
    changed_told: str = ""


@dataclass(frozen=True, eq=False)
class Card:
    """Evidence of a pair, as one picture and as HTML; a notebook shows it."""

    evidence: Evidence
    name: str = "pair"
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def picture(self) -> Image.Image:
        if "picture" not in self.made:
            self.made["picture"] = drawn(self.evidence)
        return self.made["picture"]

    @property
    def html(self) -> str:
        """A part of a page that stands alone: its picture is inside, its facts are text."""
        every = [*self.evidence.facts, *names_facts(self.evidence)]
        told = "".join(f"<dt>{html.escape(a)}</dt><dd>{html.escape(b)}</dd>" for a, b in every)
        buffer = io.BytesIO()
        self.picture.save(buffer, "PNG")
        data = base64.b64encode(as_shown(buffer.getvalue())).decode()
        title = html.escape(" and ".join(self.evidence.titles))
        return (
            f'<figure class="card"><img alt="{title}" style="max-width:100%" src="data:image/webp;base64,{data}">'
            f"<figcaption><details><summary>{title}</summary><dl>{told}</dl></details></figcaption></figure>"
        )

    def _repr_html_(self) -> str:
        return self.html

    def write(self, folder: str | Path) -> Path:
        """Writes NAME.png and NAME.html into a folder; the path of the latter."""
        folder, name = Path(folder), re.sub(r"[^A-Za-z0-9_.-]+", "-", self.name).strip("-.") or "pair"
        with atomic(folder / f"{name}.png") as temporary:
            self.picture.save(temporary, "PNG")
        head = '<!doctype html><html lang="en"><meta charset="utf-8">'
        head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
        return_to = folder / f"{name}.html"
        write_text(return_to, f"{head}<title>{html.escape(self.name)}</title><body>{self.html}</body></html>\n")
        return return_to


# the picture


def drawn(evidence: Evidence) -> Image.Image:
    """The card: pairs of images in columns, what was found in words below."""
    columns = [("the photographs", evidence.pictures, INK, "")]
    if evidence.maps is not None:
        failed = bool(evidence.maps_failed)
        title = "FAILED: what the likeness rests on" if failed else "what the likeness rests on"
        told = "; ".join(evidence.maps_failed) if failed else "the map passes its tests"
        columns.append((title, evidence.maps, OTHER if failed else SAME, told))
    if evidence.changed is not None:
        columns.append(("without their scenes", evidence.changed, INK, evidence.changed_told))
    font, gap, lines = sheet_font(13), 14, []
    wide = len(columns) * (SIDE + gap) + gap
    spots = evidence.spots
    if spots is not None:
        width = wide + 2 * SIDE + gap
        spots = spots.resize((2 * SIDE, round(spots.height * 2 * SIDE / spots.width)), Image.Resampling.LANCZOS)
    else:
        width = wide
    width = max(width, 760)
    for name, told in (*evidence.facts, *names_facts(evidence)):
        lines += wrapped(f"{name}: {told}", width - 2 * gap, font)
    high = 34 + 2 * (SIDE + 26) + 22 + 19 * len(lines) + gap
    page = Image.new("RGB", (width, high), PAPER)
    draw = ImageDraw.Draw(page)
    for number, (title, pair, colour, told) in enumerate(columns):
        left = gap + number * (SIDE + gap)
        draw.text((left, 8), shortened_to(title, SIDE, 13), colour, font)
        for row, picture in enumerate(pair):
            top = 34 + row * (SIDE + 26)
            draw.rectangle((left - 3, top - 3, left + SIDE + 2, top + SIDE + 2), fill=colour)
            page.paste(picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS), (left, top))
            if number == 0:
                draw.text((left, top + SIDE + 5), shortened_to(evidence.titles[row], SIDE, 12), INK, sheet_font(12))
        draw.text((left, 34 + 2 * (SIDE + 26)), shortened_to(told, SIDE, 11), INK, sheet_font(11))
    if spots is not None:
        draw.text((wide, 8), "spots that match", INK, font)
        page.paste(spots, (wide, 34))
        for row, line in enumerate(wrapped(evidence.spots_told, 2 * SIDE - gap, font)):
            draw.text((wide, 42 + spots.height + 19 * row), line, INK, font)
    top = 34 + 2 * (SIDE + 26) + 24
    for number, line in enumerate(lines):
        draw.text((gap, top + 19 * number), line, INK, font)
    return page


def names_facts(evidence: Evidence) -> list[tuple[str, str]]:
    """Whom a classifier, or the catalogue, names on either image."""
    told = [", ".join(f"{name} {share:.0%}" for name, share in own) for own in evidence.names or ((), ())]
    return [(f"Names of the {place}", own) for place, own in zip(("upper", "lower"), told) if own]


def wrapped(text: str, width: int, font: Any) -> list[str]:
    """The text in lines of at most `width` px."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


# a pair of a run


def run_at(run: Result | Look | str | Path, device: str = "auto") -> Look:
    """The run that is meant: by itself, by its folder, or the best one of a result or of an experiment's folder."""
    if isinstance(run, Look):
        return run
    from .remaking import experiment_in

    place = run.folder if isinstance(run, Result) else Path(run)
    folder = next((one for one in (place, *place.resolve().parents) if (one / "experiment.json").is_file()), None)
    if folder is None:
        raise KitError(f"{place}: no experiment of this kit, and no run of one (expected runs/NAME, or a run below it)")
    recipe, data = experiment_in(folder)
    specs = [spec for spec in expand(recipe) if RunFolder(folder / spec.folder).finished]
    below = [spec for spec in specs if (folder / spec.folder).resolve() == place.resolve()]
    if not specs or (place.resolve() != folder.resolve() and not below):
        raise KitError(f"{place}: no finished run lies there")
    spec = (below or sorted(specs, key=lambda one: -RunFolder(folder / one.folder).metrics()["map"]))[0]
    images = open_data(spec.recipe, load_competitions([spec], data)[data_key(spec.recipe)], folder)
    return Look(spec, images, RunFolder(folder / spec.folder).with_log, pick_device(device))


def evidence_card(
    run: Result | Look | str | Path,
    one: str | int,
    other: str | int,
    spots: bool = True,
    attribution: bool = True,
    device: str = "auto",
) -> Card:
    """Everything that a run has to say on whether two validation images show one animal.

    run: a result, an experiment's folder (of which the best run is taken) or a run's. one, other: file names of
    validation images, or their numbers. The card has likeness, probability, names, matching spots, where the likeness
    rests (with its tests), the likeness without the scenes, flanks and encounters; `picture` is an image, `html` a part
    of a page, `write` leaves both in a folder.
    """
    run = run_at(run, device)
    pair = [place_of(run, name) for name in (one, other)]
    if pair[0] == pair[1]:
        raise KitError(f"evidence_card: {one!r} and {other!r} are one image (expected two)")
    network, matches, facts = run.network, Matches.of(run), []
    likeness = float(run.similarity[tuple(pair)])
    facts.append(("Together", verdict_words(run, pair, likeness)))
    facts += [("Likeness", likeness_words(matches, pair, likeness)), *told_facts(run, pair)]
    swapped, changed_told, changed = without_scenes(run, pair, likeness)
    facts.append(("Without scenes", changed_told))
    drawn_spots, spots_told = spots_of_pair(run, pair) if spots else (None, "")
    facts += [("Spots", spots_told)] if spots_told else []
    positions = run.positions[pair]
    asked = about_each(network.inputs(positions), animals_in(network, positions))
    maps, failed = maps_of_pair(network, asked) if attribution else (None, ())
    if maps is not None:
        facts.append(("Where it rests", "; ".join(failed) if failed else "the map passes both tests"))
    store = run.images.store
    evidence = Evidence(
        tuple(store.thumbnail(int(run.positions[i])) for i in pair),
        tuple(f"{run.labels[i]}  {run.kept['images'][i]}" for i in pair),
        tuple(facts),
        names_of_pair(run, pair) if network.names else None,
        drawn_spots,
        spots_told,
        maps,
        tuple(failed),
        changed,
        f"likeness {swapped:.3f} in place of {likeness:.3f}",
    )
    return Card(evidence, f"{run.kept['images'][pair[0]]}-{run.kept['images'][pair[1]]}")


def place_of(run: Look, name: str | int) -> int:
    """The number of a validation image, by its file name or by that number."""
    if isinstance(name, (int, np.integer)) and 0 <= name < len(run.labels):
        return int(name)
    found = np.flatnonzero(run.kept["images"] == str(name))
    if not len(found):
        raise KitError(
            f"evidence_card: {name!r} is no validation image of {run.name} (expected a file name, or a number)"
        )
    return int(found[0])


def probability_of(run: Look, likeness: float) -> float:
    """How probable it is that images so alike show one animal, by the validation pairs of two encounters."""
    matches = Matches.of(run)
    upper = np.triu(np.ones(matches.similarity.shape, bool), 1)
    if matches.encounters is not None:
        upper &= matches.encounters[:, None] != matches.encounters
    same = matches.same[upper]
    if not same.any() or same.all():
        return math.nan
    return float(fit_calibration(matches.similarity[upper], same, "logistic")([likeness])[0])


def verdict_words(run: Look, pair: Sequence[int], likeness: float) -> str:
    """Whether labels say that it is one animal, and how probable that is by likeness alone."""
    same = run.labels[pair[0]] == run.labels[pair[1]]
    told = "the labels say one animal" if same else "the labels say two animals"
    share = probability_of(run, likeness)
    if math.isnan(share):
        return f"{told}; no probability can be told"
    return f"{told}; by likeness alone one animal with probability {share:.0%} (fitted on all validation pairs)"


def likeness_words(matches: Matches, pair: Sequence[int], likeness: float) -> str:
    same, others = matches.same, ~matches.same & ~np.eye(len(matches.labels), dtype=bool)
    told = [f"{likeness:.3f}"]
    for pairs, name in ((same, "one animal"), (others, "two animals")):
        below = math.floor(100 * (matches.similarity[pairs] < likeness).mean()) if pairs.any() else 0
        told += [f"above {below}% of pairs of {name}"] if pairs.any() else []
    rank = 1 + int((matches.others[pair[0]] > likeness).sum())
    return f"{', '.join(told)}; the lower image is number {rank} of {len(matches.labels) - 1} for the upper one"


def told_facts(run: Look, pair: Sequence[int]) -> list[tuple[str, str]]:
    """Flanks, encounters and scenes, as the table tells them."""
    found = []
    for what, values in (("Flanks", run.flanks), ("Scenes", run.scenes)):
        if values is None:
            found.append((what, "no column tells them")) if what == "Flanks" else None
            continue
        one, other = (values[i] for i in pair)
        alike = "" if not (one and other) else "the same" if one == other else "different"
        more = ", which share no spots" if what == "Flanks" and alike == "different" else ""
        found.append((what, f"{one or 'untold'} and {other or 'untold'}{f': {alike}{more}' if alike else ''}"))
    met = run.encounters
    if met is not None:
        again = met[pair[0]] == met[pair[1]]
        found.append(("Encounter", "one: light and background are shared" if again else "two different ones"))
    return found


def without_scenes(
    run: Look, pair: Sequence[int], likeness: float
) -> tuple[float, str, tuple[Image.Image, Image.Image]]:
    """The likeness of the pair when each has the background of the other image, or where masks are missing, with the
    border hidden; in words, and the images as they are seen then."""
    network, positions = run.network, run.positions[list(pair)]
    if run.images.store.has_masks:
        changed = network.on_background("swap").inputs(positions)
        how = "each before the scene of the other image"
    else:
        changed, how = hide_border(network.on_background("original").inputs(positions)), "with the border hidden"
    with torch.no_grad():
        points = network.embedder(changed)
    found = float(similarity_matrix(points, geometry=network.geometry)[0, 1])
    share = probability_of(run, likeness), probability_of(run, found)
    probable = "" if any(map(math.isnan, share)) else f" (probability {share[1]:.0%} in place of {share[0]:.0%})"
    pictures = tuple(seen_picture(Question(image, image[0]), network) for image in changed)
    return found, f"{how} the likeness is {found:.3f} in place of {likeness:.3f}{probable}", pictures


def names_of_pair(run: Look, pair: Sequence[int], most: int = 3) -> tuple[list[tuple[str, float]], ...]:
    """The likeliest names of each of the two, by the loss's classes."""
    points = torch.from_numpy(run.kept["embeddings"][list(pair)]).to(run.device)
    with torch.no_grad():
        shares = run.network.logits(points).softmax(1).cpu()
    names = run.network.identities
    return tuple([(names[i], float(own[i])) for i in own.argsort(descending=True)[:most]] for own in shares)


SPOT_SIZE = 480  # px of the squares that spots are looked for in


def spots_of_pair(run: Look, pair: Sequence[int], most: int = 30) -> tuple[Image.Image | None, str]:
    """Both images with their matching spots, by ALIKED where its weights are there, else by SIFT."""
    store = run.images.at_size(max(SPOT_SIZE, run.spec.recipe.data.size)).subset(run.positions[list(pair)])
    detector = "aliked" if at_hand() else "sift"
    features = extract_local(store, detector)
    here, there, strength = (values.tolist() for values in features.matches(0, 1))
    told = f"{len(strength)} match by {'ALIKED' if detector == 'aliked' else 'SIFT'}, strength {sum(strength):.2f}"
    lines = [[*xy, *uv, weight] for xy, uv, weight in zip(here, there, strength)][:most]
    if not lines:
        return None, f"none matches by {detector.upper()}"
    return spots_figure(store.thumbnail(0), store.thumbnail(1), lines), told


def about_each(images: Tensor, animals: Tensor) -> list[Question]:
    """How alike each of two images (2, 3, H, W) is to the other."""
    return [Question(images[i], animals[i], other=images[1 - i]) for i in (0, 1)]


def maps_of_pair(
    network: Network, asked: Sequence[Question], grid: int = 7, shuffles: int = 3
) -> tuple[tuple[Image.Image, Image.Image], list[str]]:
    """Where the likeness rests in either image, by occlusion, and which tests the maps fail."""
    trial, maps = tried(Scorer(network), asked, next(iter(METHODS)), grid, shuffles)
    pictures = tuple(overlay(seen_picture(one, network), found) for one, found in zip(asked, maps))
    return pictures, trial.map_failures


# cards on a page


def put_card(page: Page, card: Card, name: str, caption: str) -> None:
    page.image(name, card.picture, f"{caption} {facts_text(card.evidence.facts)}")


def facts_text(facts: Sequence[tuple[str, str]]) -> str:
    return " ".join(f"{name}: {told}." for name, told in facts)


@look("cards")
def cards(context: LookContext, pairs: Count = 3, attribution: bool = True) -> Page:
    """Evidence cards of the control: worst confusions, and pairs of one animal of two encounters that are hard to see.

    pairs: of each kind.
    """
    page, run = Page(), context.shown[0]
    page.heading("Evidence of single pairs", 3)
    for number, (one, other, why) in enumerate(pairs_to_show(run, pairs)):
        card = evidence_card(run, one, other, attribution=attribution)
        card.write(context.folder / "cards")
        put_card(page, card, f"card{number}", f"{why}.")
    return page


def pairs_to_show(run: Look, most: int) -> list[tuple[int, int, str]]:
    """The wrong first matches that lie furthest above the right ones, and the most and the least alike right pairs."""
    matches = Matches.of(run)
    own = np.where(matches.same, matches.others, -np.inf)
    if matches.encounters is not None:
        own = np.where(matches.encounters[:, None] == matches.encounters, -np.inf, own)
    margin = np.where(matches.wrong, matches.others.max(1) - own.max(1), -np.inf)
    margin[~np.isfinite(own.max(1))] = -np.inf
    worst = [i for i in np.argsort(-margin, kind="stable")[:most] if np.isfinite(margin[i])]
    found = [(int(i), int(matches.first[i]), "A wrong first match") for i in worst]
    found += [(int(i), int(own[i].argmax()), "The match that was to be found") for i in worst[:1]]
    alike = np.where(np.isfinite(own.max(1)), own.max(1), -np.inf)
    best = [i for i in np.argsort(-alike, kind="stable")[:most] if np.isfinite(alike[i])]
    found += [(int(i), int(own[i].argmax()), "A right pair, of the most alike") for i in best]
    return list({tuple(sorted(pair[:2])): pair for pair in reversed(found)}.values())[::-1]  # each once
