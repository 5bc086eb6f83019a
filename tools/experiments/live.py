"""Curves that a page draws as SVG: variants are switched off and on, and a point tells its run, epoch and numbers."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from .figures import DASHES, MOST_BANDS, PALETTE

WIDE, HIGH = 440, 270  # px of a panel, as it is drawn
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 26, 36  # px beside its axes

DARK = ("#3f8fe0", "#e8590c", "#f2f2f2", "#20b890")  # the palette on a dark page

STYLE = f"""
.curves {{ --grid: #ddd; }} .curves .keys {{ display: flex; flex-wrap: wrap; gap: .3em; margin: .4em 0; }}
{" ".join(f".v{i} {{ --c: {colour}; }}" for i, colour in enumerate(PALETTE))}
.keys button {{ font: inherit; font-size: 13.5px; color: inherit; background: none; cursor: pointer; padding: .2em .6em;
  min-height: 28px; border: 1px solid #bbb; border-radius: 4px; overflow-wrap: anywhere; text-align: left; }}
.keys button svg {{ width: 26px; height: 8px; margin-right: .4em; vertical-align: middle; }}
.keys button[aria-pressed="false"] {{ text-decoration: line-through; opacity: .55; }}
.keys button:focus-visible, .panels svg:focus-visible {{ outline: 2px solid #1c5f99; outline-offset: 1px; }}
.panels {{ display: flex; flex-wrap: wrap; gap: .4em 1em; }}
.panels svg {{ flex: 1 1 340px; min-width: 0; max-width: 560px; height: auto; touch-action: pan-y; }}
.curves svg text {{ font: 12px system-ui, sans-serif; fill: currentColor; }}
.curves svg text.on-y {{ font-weight: 600; }}
.grid {{ stroke: var(--grid); fill: none; }} .curves .off {{ display: none; }}
.line, .thin, .one {{ fill: none; stroke: var(--c); }} .line {{ stroke-width: 2; }} .thin {{ stroke-width: .8; }}
.one {{ stroke-width: 1.2; }} .band {{ fill: var(--c); opacity: .14; }} .dot {{ fill: var(--c); }}
.mark {{ fill: none; stroke: currentColor; stroke-width: 1.6; }}
.told {{ min-height: 3em; margin: .3em 0; font-size: 13.5px; font-variant-numeric: tabular-nums; }}
@media (max-width: 700px) {{ .panels svg {{ flex-basis: 100%; max-width: none; }} .told {{ min-height: 6em; }}
  .keys button {{ min-height: 36px; }} }}
@media print {{ .told, .keys .all {{ display: none; }} .keys button[aria-pressed="false"] {{ display: none; }}
  .keys button {{ border: 0; padding: 0 .6em 0 0; min-height: 0; font-size: 8pt; }}
  .panels svg {{ flex-basis: 40%; max-width: 48%; break-inside: avoid; }} }}
@media screen and (prefers-color-scheme: dark) {{ .curves {{ --grid: #3a3f45; }} .keys button {{ border-color: #555; }}
  {" ".join(f".v{i} {{ --c: {colour}; }}" for i, colour in enumerate(DARK))} }}
"""

SCRIPT = """
const curves = [...document.querySelectorAll('.curves')], off = new Set();
const short = value => Math.abs(value) >= .001 && Math.abs(value) < 1 ? value.toFixed(4)
  : String(Number(value.toPrecision(4)));
const pointsOf = svg => svg.points ??= [...svg.querySelectorAll('.curve')].flatMap(curve => {
  const {v, name, what} = curve.dataset, epochs = JSON.parse(curve.dataset.epochs);
  const [left, width, top, height] = JSON.parse(svg.dataset.box), log = svg.dataset.log === '1';
  const [x0, x1, y0, y1] = JSON.parse(svg.dataset.scale), up = y => log ? Math.log10(y) : y;
  return Object.entries(JSON.parse(curve.dataset.runs)).flatMap(([seed, values]) => values.map((value, i) => ({
    curve, v, name, what, seed, value, epoch: epochs[i], x: left + width * (epochs[i] - x0) / (x1 - x0),
    y: top + height * (y1 - up(value)) / (y1 - y0)})).filter(point => point.value !== null));
});
const shown = svg => pointsOf(svg).filter(point => !off.has(point.v));
const clear = figure => {
  for (const mark of figure.querySelectorAll('.mark, .one')) mark.remove();
  figure.querySelector('.told').textContent = figure.querySelector('.told').dataset.hint;
  figure.pointed = null;
};
const drawn = (kind, parent, marks) => {
  const one = document.createElementNS(parent.namespaceURI, kind);
  for (const [name, value] of Object.entries(marks)) one.setAttribute(name, value);
  parent.append(one);
};
const point = (figure, svg, at) => {
  clear(figure);
  figure.pointed = at;
  const alike = [...figure.querySelectorAll('.panels svg')].flatMap(pointsOf)
    .filter(other => other.v === at.v && other.seed === at.seed);
  for (const curve of new Set(alike.map(other => other.curve))) {
    const own = alike.filter(other => other.curve === curve);
    drawn('path', curve, {class: 'one', d: 'M' + own.map(other => `${other.x},${other.y}`).join('L')});
  }
  drawn('circle', svg, {class: 'mark', cx: at.x, cy: at.y, r: 6});
  const numbers = alike.filter(other => other.epoch === at.epoch).map(other => `${other.what} ${short(other.value)}`);
  const seeds = pointsOf(svg).filter(other => other.curve === at.curve && other.epoch === at.epoch)
    .map(other => other.value);
  const mean = seeds.reduce((sum, value) => sum + value, 0) / seeds.length;
  const over = seeds.length > 1 ? `; ${at.what} of ${seeds.length} seeds: mean ${short(mean)}, ` +
    `${short(Math.min(...seeds))} to ${short(Math.max(...seeds))}` : '';
  figure.querySelector('.told').textContent =
    `${at.name}/seed${at.seed}, epoch ${at.epoch}: ${numbers.join(', ')}${over}.`;
};
const nearest = (svg, event) => {
  const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
  const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
  let best = null, least = 40;
  for (const one of shown(svg)) {
    const far = Math.hypot(one.x - x, one.y - y);
    if (far < least) [best, least] = [one, far];
  }
  return best;
};
const step = (svg, at, key) => {
  const run = one => `${one.v}/${one.seed}/${one.what}`;
  const every = shown(svg), runs = [...new Set(every.map(run))];
  const own = every.filter(one => run(one) === run(at)), place = own.indexOf(at);
  if (key === 'ArrowLeft' || key === 'ArrowRight')
    return own[Math.min(Math.max(place + (key === 'ArrowLeft' ? -1 : 1), 0), own.length - 1)];
  if (key === 'Home' || key === 'End') return own.at(key === 'Home' ? 0 : -1);
  const next = (runs.indexOf(run(at)) + (key === 'ArrowUp' ? runs.length - 1 : 1)) % runs.length;
  const others = every.filter(one => run(one) === runs[next]);
  return others.find(one => one.epoch === at.epoch) ?? others.at(-1);
};
const show = (v, on) => {
  on ? off.delete(v) : off.add(v);
  for (const figure of curves) {
    for (const one of figure.querySelectorAll(`[data-v="${v}"]`))
      one.matches('button') ? one.setAttribute('aria-pressed', on) : one.classList.toggle('off', !on);
    if (figure.pointed?.v === v && !on) clear(figure);
  }
};
for (const figure of curves) {
  for (const key of figure.querySelectorAll('.keys button[data-v]'))
    key.addEventListener('click', () => show(key.dataset.v, off.has(key.dataset.v)));
  for (const key of figure.querySelectorAll('.keys .all')) key.addEventListener('click', () => {
    for (const one of figure.querySelectorAll('.keys button[data-v]')) show(one.dataset.v, key.dataset.on === '1');
  });
  for (const svg of figure.querySelectorAll('.panels svg')) {
    const at = event => { const one = nearest(svg, event); one ? point(figure, svg, one) : clear(figure); };
    svg.addEventListener('pointermove', at);
    svg.addEventListener('pointerdown', at);
    svg.addEventListener('pointerleave', event => event.pointerType === 'mouse' && clear(figure));
    svg.addEventListener('focus', () => {
      const one = shown(svg).at(-1);
      if (one && svg.matches(':focus-visible')) point(figure, svg, one);
    });
    svg.addEventListener('keydown', event => {
      if (!/^(Arrow|Home$|End$|Escape$)/.test(event.key)) return;
      event.preventDefault();
      const now = shown(svg).includes(figure.pointed) ? figure.pointed : shown(svg).at(-1);
      if (event.key === 'Escape' || !now) return clear(figure);
      point(figure, svg, step(svg, now, event.key));
    });
  }
}
"""


@dataclass(frozen=True, eq=False)
class Curve:
    """A column of the logs of one variant's runs, by epoch."""

    place: int  # of the variant among all, which gives its colour
    name: str
    what: str  # the measure, in words
    runs: Mapping[str, pd.Series]  # by seed: values by epoch
    strokes: str | None = None  # px of line and gap, "" for a whole line; those of the place unless given

    @property
    def wide(self) -> pd.DataFrame:
        """By epoch (rows) and seed (columns)."""
        return pd.concat(self.runs, axis=1).sort_index().replace([math.inf, -math.inf], math.nan)


@dataclass(frozen=True, eq=False)
class Panel:
    """Curves on one pair of axes."""

    label: str
    curves: Sequence[Curve]
    log: bool = False
    alone: int | None = None  # the place of the variant to which the panel belongs


def live_curves(panels: Sequence[Panel], one_scale: bool = False) -> str:
    """A legend of buttons, a line that tells of the point that is meant, and the panels; one_scale: all have the same.

    It is whole without a script; the page's script switches variants, and tells of points.
    """
    names = {curve.place: curve.name for panel in panels for curve in panel.curves}
    keys = "".join(key_button(place, name) for place, name in sorted(names.items()))
    if len(names) > 2:
        keys += '<button type="button" class="all" data-on="1">show all</button>'
        keys += '<button type="button" class="all" data-on="0">hide all</button>'
    choose = "A name switches its variant off and on. " if len(names) > 1 else ""
    hint = f"{choose}Point at a curve, or focus a panel and use the arrow keys: run, epoch and numbers stand here."
    shared = bounds_of([curve for panel in panels for curve in panel.curves]) if one_scale else None
    drawn = "".join(panel_svg(panel, len(names) <= MOST_BANDS, shared) for panel in panels)
    legend = f'<div class="keys">{keys}</div>' if len(names) > 1 else ""
    told = f'<p class="told note" aria-live="polite" data-hint="{html.escape(hint)}">{html.escape(hint)}</p>'
    return f'<div class="curves">{legend}<div class="panels">{drawn}</div>{told}</div>'


def colour_class(place: int) -> str:
    return f"v{place % len(PALETTE)}"


def dash_of(place: int, strokes: str | None = None) -> str:
    """The strokes of a variant's line, as an attribute: colours come again with other strokes."""
    dashes = DASHES[place // len(PALETTE) % len(DASHES)] if strokes is None else strokes
    return f' stroke-dasharray="{dashes}"' if dashes else ""


def key_button(place: int, name: str) -> str:
    line = f'<path class="line" d="M0,4H26"{dash_of(place)}/>'
    swatch = f'<svg viewBox="0 0 26 8" class="{colour_class(place)}" aria-hidden="true">{line}</svg>'
    return f'<button type="button" aria-pressed="true" data-v="{place}">{swatch}{html.escape(name)}</button>'


def bounds_of(curves: Sequence[Curve], log: bool = False) -> tuple[float, float]:
    """The lowest and the highest value, with a little room; logarithms where log."""
    values = np.concatenate([curve.wide.to_numpy(float).ravel() for curve in curves])
    values = values[np.isfinite(values) & ((values > 0) | (not log))]
    values = np.log10(values) if log else values
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    room = 0.04 * (high - low) or (0.3 if log else 0.05 * max(abs(high), 1e-3))
    return low - room, high + room


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers between two bounds, at most about so many."""
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span / most))
    step = next((step * times for times in (1, 2, 5) if span / (step * times) <= most), 10 * step)
    step = max(round(step), 1) if whole else step
    return [step * i for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten between two logarithms, or of the powers where they are many."""
    powers = range(math.floor(low) - 1, math.ceil(high) + 1)
    for times in ((1, 2, 5), (1,)):
        found = [power + math.log10(one) for power in powers for one in times]
        found = [tick for tick in found if low <= tick <= high]
        if len(found) <= most:
            break
    return found


def tick_text(value: float, log: bool) -> str:
    return f"{10**value:.0e}".replace("e-0", "e-").replace("e+0", "e") if log else f"{value:.4g}"


def panel_svg(panel: Panel, bands: bool, shared: tuple[float, float] | None) -> str:
    """One panel: axes, bands, lines, and in attributes what the script needs to tell of points."""
    y0, y1 = shared or bounds_of(panel.curves, panel.log)
    epochs = [epoch for curve in panel.curves for epoch in curve.wide.index]
    x0, x1 = float(min(epochs)), float(max(max(epochs), min(epochs) + 1))
    width, height = WIDE - LEFT - RIGHT, HIGH - TOP - BOTTOM

    def across(epoch: float) -> float:
        return LEFT + width * (epoch - x0) / (x1 - x0)

    def up(value: float) -> float:
        value = math.log10(value) if panel.log else value
        return TOP + height * (y1 - value) / (y1 - y0)

    parts = [f'<text class="on-y" x="4" y="14">{html.escape(panel.label)}</text>']
    for tick in log_ticks(y0, y1) if panel.log else ticks(y0, y1):
        y = TOP + height * (y1 - tick) / (y1 - y0)
        parts.append(f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDE - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick_text(tick, panel.log)}</text>')
    parts += [
        f'<text x="{across(tick):.1f}" y="{HIGH - 18}" text-anchor="middle">{tick:g}</text>'
        for tick in ticks(x0, x1, 8, whole=True)
    ]
    parts.append(f'<text x="{LEFT + width / 2}" y="{HIGH - 3}" text-anchor="middle">epoch</text>')
    parts += [curve_svg(curve, bands, across, up, panel.log) for curve in panel.curves]
    scale = json.dumps([x0, x1, y0, y1])
    own = "" if panel.alone is None else f' data-v="{panel.alone}"'
    label = f"{panel.label} by epoch; arrow keys go from point to point"
    return (
        f'<svg viewBox="0 0 {WIDE} {HIGH}" tabindex="0" role="img" aria-label="{html.escape(label)}"{own} '
        f'data-log="{int(panel.log)}" data-scale="{scale}" data-box="[{LEFT},{width},{TOP},{height}]">'
        f"{''.join(parts)}</svg>"
    )


def curve_svg(curve: Curve, bands: bool, across: Any, up: Any, log: bool) -> str:
    """Mean over seeds as far as all runs go, the band from lowest to highest, and thinly the runs that went on."""
    wide = curve.wide
    wide = wide.where(wide > 0) if log else wide
    ends = min(int(values.index.max()) for values in curve.runs.values())
    every = wide.loc[:ends]
    parts = []
    if bands and wide.shape[1] > 1:
        there = every.dropna(how="all")
        over = [f"{across(e):.1f},{up(v):.1f}" for e, v in there.max(axis=1).items()]
        under = [f"{across(e):.1f},{up(v):.1f}" for e, v in there.min(axis=1).items()]
        parts.append(f'<path class="band" d="M{"L".join([*over, *reversed(under)])}Z"/>' if over else "")
        alone = [path_of(wide.loc[ends:, seed], across, up) for seed in wide]
        parts += [f'<path class="thin" d="{one}"/>' for one in alone if "L" in one]
    mean = every.mean(axis=1)
    parts.append(f'<path class="line" d="{path_of(mean, across, up)}"{dash_of(curve.place, curve.strokes)}/>')
    if len(wide) < 5:
        dots = ((across(e), up(v)) for e, v in mean.dropna().items())
        parts += [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots]
    runs = {seed: [None if math.isnan(v) else float(f"{v:.5g}") for v in wide[seed]] for seed in wide}
    told = html.escape(json.dumps(runs, separators=(",", ":")), quote=False).replace("'", "&#39;")
    return (
        f'<g class="curve {colour_class(curve.place)}" data-v="{curve.place}" data-name="{html.escape(curve.name)}" '
        f'data-what="{html.escape(curve.what)}" data-epochs="{json.dumps([int(e) for e in wide.index])}" '
        f"data-runs='{told}'>{''.join(parts)}</g>"
    )


def path_of(values: pd.Series, across: Any, up: Any) -> str:
    """A line through the values by epoch, broken where one is missing."""
    found, pen = [], "M"
    for epoch, value in values.items():
        if math.isnan(value):
            pen = "M"
        else:
            found.append(f"{pen}{across(epoch):.1f},{up(value):.1f}")
            pen = "L"
    return "".join(found)
