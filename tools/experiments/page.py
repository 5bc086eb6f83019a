"""Pages: tables, figures and words as self-contained HTML and as Markdown."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaguar_kit import (
    MEASURES,
    Measure,
    atomic,
    write_text,
)
from PIL import Image

from . import live
from .figures import image_type

STYLE = """
:root { --paper: #fff; color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: var(--paper); max-width: 1240px; margin: 2em auto;
  padding: 0 1em; }
h1 { font-size: 1.7em; margin-bottom: .2em; } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: 1em 0; font-variant-numeric: tabular-nums; }
th, td { padding: .25em .6em; font-size: 13.5px; text-align: right; border-bottom: 1px solid #eee; }
th { background: #f6f6f4; }
th:first-child, td:first-child, .t { text-align: left; } .words dt { font-weight: 600; } .words dd { margin: 0 0 .6em; }
img { width: var(--w, auto); max-width: 100%; height: auto; }
pre { background: #f6f6f4; padding: 1em; overflow-x: auto; font-size: 13px; }
.note { color: #555; } .wide { overflow-x: auto; }
nav { margin: 1em 0; display: flex; flex-wrap: wrap; gap: .2em 1.2em; font-size: 14px; } nav a { color: #1c5f99; }
.wide th { cursor: pointer; } pre, .words dd { overflow-wrap: anywhere; } figure { margin: 1em 0; }
details { margin: 1em 0; } summary { cursor: pointer; color: #1c5f99; }
td.t { max-width: 32em; overflow-wrap: break-word; } .words { margin: 1em 0; }
.beside { display: flex; flex-wrap: wrap; gap: 0 1em; }
.beside figure { flex: 1 1 540px; max-width: 594px; margin: 0 0 .6em; }
@media (max-width: 700px) { body { margin: 1em auto; } h1 { font-size: 1.4em; } ul { padding-left: 1.2em; }
  figure img { max-width: none; width: max(min(100%, var(--w)), .68 * var(--w)); }
  td.t { min-width: 7em; max-width: 17em; } pre { white-space: pre-wrap; }
  .beside { display: block; } .wide table { width: max-content; max-width: none; }
  .wide th:first-child, .wide td:first-child { position: sticky; left: 0; max-width: 10.5em; overflow-wrap: anywhere; }
  .wide td:first-child { background: var(--paper); } }
@page { margin: 14mm 12mm; }
@media print { body { max-width: none; margin: 0; font-size: 10pt; } .wide { overflow: visible; }
  figure, tr { break-inside: avoid; }
  h1, h2, h3, h2 + p, h3 + p, dt, summary, tr:nth-child(-n + 3) { break-after: avoid; }
  tr:nth-last-child(-n + 3) { break-before: avoid; } img { width: auto; max-height: 230mm; }
  th, td { font-size: 7.5pt; padding: .1em .25em; } summary { list-style: none; color: inherit; font-weight: 600; }
  summary::marker { content: ""; }
  details::details-content { content-visibility: visible; display: block; } }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #16181b; } body { color: #ddd; }
  th, pre { background: #24282d; }
  th, td { border-color: #333; } .note { color: #aaa; } h2 { border-color: #444; } summary, nav a { color: #8fc1ee; }
  img { background: #fff; } }
"""

SORTING = """
for (const head of document.querySelectorAll('.wide th')) head.addEventListener('click', () => {
  const table = head.closest('table'), column = head.cellIndex, down = head.dataset.down !== '1';
  const number = text => text.trim() === '' ? NaN : Number(text.replaceAll(',', ''));
  const rows = [...table.rows].slice(1);
  rows.sort((a, b) => {
    const [one, other] = [a, b].map(row => row.cells[column].textContent);
    const [x, y] = [number(one), number(other)];
    return (down ? -1 : 1) * (isNaN(x) || isNaN(y) ? one.localeCompare(other) : x - y);
  });
  for (const row of rows) row.parentNode.append(row);
  for (const other of table.querySelectorAll('th')) delete other.dataset.down;
  head.dataset.down = down ? '1' : '0';
});
"""


@dataclass(frozen=True)
class Column:
    """A column of the tables of results."""

    meaning: str = ""
    of_runs: bool = True  # whether the page's table of runs shows it; results.csv has all
    averaged: bool = False  # whether the summary has its mean over seeds


OF_SUMMARIES = {  # columns beside the measures
    "variant": Column("what varies"),
    "seed": Column("of training, and where the recipe says so of the split"),
    "n": Column("seeds", of_runs=False),
    "sd": Column("standard deviation over seeds", of_runs=False),
    "se": Column("standard error of the mean", of_runs=False),
    "least": Column("the lowest mAP of a seed", of_runs=False),
    "most": Column("the highest", of_runs=False),
    "low": Column("lower end of the 95 % interval of the mean (Student)", of_runs=False),
    "high": Column("upper end", of_runs=False),
    "low_animals": Column("lower end of the 95 % interval over identities: what other animals may give", of_runs=False),
    "high_animals": Column("upper end", of_runs=False),
    "published": Column("measured by others, on images of the same number", of_runs=False),
    "best_epoch_sd": Column("its standard deviation over seeds", of_runs=False),
    "best_epochs": Column("the first and the last of them", of_runs=False),
    "loss_variance": Column("of the training loss over the last ten epochs", of_runs=False),
    "map_variance": Column("of the validation mAP over the epochs of a run", of_runs=False),
    "grad_norm_sd": Column("standard deviation of the gradient's mean norm over the epochs of a run", of_runs=False),
    "steps_skipped": Column("steps whose gradient was no number", of_runs=False),
    "failed": Column("runs that ended with an error, such as a loss that is no number", of_runs=False),
    "reliance": Column("mAP lost where other images' backgrounds stand behind the animals", of_runs=False),
    "grad_norm": Column("mean norm of the gradient over the steps of an epoch", of_runs=False),
    "images_per_second": Column("in training", of_runs=False),
    "last_train_loss": Column("training loss of the last epoch", of_runs=False),
    "last_val_loss": Column("validation loss of the last epoch", of_runs=False),
    "embedding_norm": Column("mean length of the validation embeddings", of_runs=False),
    "distance_to_rim": Column("of the outermost embedding in the Poincare ball", of_runs=False),
}


def of_measure(measure: Measure) -> Column:
    missing = f"; empty where {measure.missing}" if measure.missing else ""
    return Column(f"{measure.meaning}{missing}", measure.of_runs, measure.averaged)


COLUMNS = {**OF_SUMMARIES, **{name: of_measure(measure) for name, measure in MEASURES.items()}}
COLUMNS = {name: COLUMNS[name] for name in ("variant", "seed", *MEASURES, *COLUMNS)}

ANSWERING = (  # the columns that stand first
    "variant", "n", "map", "sd", "low", "high", "low_animals", "high_animals", "map_across", "published", "test_map",
    "reliance", "diverged", "failed", "best_epoch", "seconds",
)  # fmt: skip


# tables


def markdown_table(table: pd.DataFrame) -> str:
    def cells(values: Iterable[Any]) -> str:
        return " | ".join(" ".join(str(v).replace("|", "\\|").split()) for v in values)

    rows = [table.columns, ["---"] * table.shape[1], *shown_rows(table)]
    return "\n".join(f"| {cells(row)} |" for row in rows)


def show_value(value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        small = 1e-3 <= abs(value) < 1 or not value
        return f"{value:.4f}" if small else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, (int, np.integer)) and value > 9999 else str(value)


def show_column(values: pd.Series) -> list[str]:
    """Values of a column, written alike: whole numbers as such, shares with four digits, seconds with one."""
    numbers = values.dropna() if values.dtype.kind == "f" else values[:0]
    if len(numbers) and (numbers % 1 == 0).all():
        return ["" if math.isnan(v) else f"{v:,.0f}" for v in values]
    if len(numbers) and values.name == "seconds":
        return ["" if math.isnan(v) else f"{v:,.1f}" if v < 100 else f"{v:,.0f}" for v in values]
    if len(numbers) and numbers.abs().max() <= 1:
        measure = "." not in str(values.name) and numbers.abs().max() >= 1e-3  # and no setting, such as a rate
        least = 5e-5 if measure else 1e-3
        return [f"{v:.4f}" if least <= abs(v) <= 1 else show_value(v) for v in values]
    return [show_value(v) for v in values]


def shown_rows(table: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    return zip(*(show_column(table.iloc[:, i]) for i in range(table.shape[1])))


def filled(table: pd.DataFrame) -> pd.DataFrame:
    """The table without columns in which no row says anything."""
    said = [any(map(str.strip, show_column(table.iloc[:, i]))) for i in range(table.shape[1])]
    return table.loc[:, said] if len(table) and any(said) else table


MOST_COLUMNS = 15  # of a table, that a sheet of paper holds


def html_table(table: pd.DataFrame) -> str:
    """The table; a wide one as several below each other, each with the first column."""
    if table.shape[1] <= MOST_COLUMNS:
        return narrow_table(table)
    parts = math.ceil((table.shape[1] - 1) / (MOST_COLUMNS - 1))
    rest = np.array_split(np.arange(1, table.shape[1]), parts)
    return "".join(narrow_table(table.iloc[:, [0, *part]]) for part in rest)


def narrow_table(table: pd.DataFrame) -> str:
    texts = (table.iloc[:, i].map(lambda value: isinstance(value, str)).any() for i in range(table.shape[1]))
    words = [' class="t"' if text else "" for text in texts]
    meanings = {name: html.escape(column.meaning) for name, column in COLUMNS.items() if column.meaning}
    head = "".join(
        f'<th{kind} title="{meanings.get(str(c), "click to sort")}">{heading_html(str(c))}</th>'
        for kind, c in zip(words, table.columns)
    )
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{html.escape(text)}</td>" for kind, text in zip(words, row)) + "</tr>"
        for row in shown_rows(table)
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def heading_html(name: str) -> str:
    """A column's name, which may go on in another line behind the dots of a setting and between words."""
    return html.escape(name.replace("_", " ")).replace(".", ".<wbr>")


# pages


class Page:
    """A report that grows block by block and is written as self-contained HTML, as Markdown, and as single images.

    Without a title it is a part of another page, to which `add` puts it.
    """

    def __init__(self, title: str = ""):
        self.title = title
        self.html: list[str] = [f"<h1>{html.escape(title)}</h1>"] if title else []
        self.lines: list[str] = [f"# {title}"] if title else []
        self.images: dict[str, bytes] = {}  # PNG or JPEG by name
        self.contents: list[str] = []  # headings of the second level
        self.points: dict[str, list[str]] = {}  # by heading, what the whole page shall say of a part

    def add(self, part: Page) -> None:
        self.html += part.html
        self.contents += part.contents
        self.lines += part.lines
        self.images |= part.images

    def heading(self, text: str, level: int = 2) -> None:
        mark = f' id="{anchor(text)}"' if level == 2 else ""
        self.contents += [text] if level == 2 else []
        self.html.append(f"<h{level}{mark}>{html.escape(text)}</h{level}>")
        self.lines.append(f"{'#' * level} {text}")

    def words(self, pairs: Iterable[tuple[str, str]]) -> None:
        pairs = [(name, text.strip()) for name, text in pairs if text.strip()]
        entries = [f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in pairs]
        self.html += ['<dl class="words">', *entries, "</dl>"]
        self.lines += [f"**{name}.** {text}" for name, text in pairs]

    def text(self, text: str) -> None:
        self.html += [f"<p>{html.escape(part)}</p>" for part in text.strip().split("\n\n")]
        self.lines.append(text.strip())

    def note(self, text: str) -> None:
        self.html.append(f'<p class="note">{html.escape(text)}</p>')
        self.lines.append(text)

    def bullets(self, items: Sequence[str]) -> None:
        self.html += ["<ul>", *[f"<li>{html.escape(item)}</li>" for item in items], "</ul>"]
        self.lines.append("\n".join(f"* {item}" for item in items))

    def table(self, table: pd.DataFrame, note: str = "") -> None:
        """A table, without its empty columns, and a note below it."""
        table = filled(table)
        self.html.append(html_table(table))
        self.lines.append(markdown_table(table))
        if note:
            self.note(note)

    def fold(self, title: str, table: pd.DataFrame, note: str = "") -> None:
        """A table that a click unfolds; printed, it is unfolded."""
        with self.folded(title):
            self.table(table, note)

    @contextmanager
    def folded(self, title: str) -> Iterator[None]:
        """What is put on the page within the block is seen when a click unfolds it, and printed."""
        self.html.append(f"<details><summary>{html.escape(title)}</summary>")
        yield
        self.html.append("</details>")

    def figure(self, name: str, figure: Any, caption: str) -> None:
        buffer, layout = io.BytesIO(), figure.get_layout_engine()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks become boxes
            if layout is not None:  # once, where saving would do it twice
                layout.execute(figure)
                figure.set_layout_engine("none")
            figure.savefig(buffer, format="png", dpi=110)
        self.image(name, buffer.getvalue(), caption)

    def live(self, name: str, figure: Any, caption: str, drawn: str) -> None:
        """A figure whose picture is for Markdown; the page has in its place what `live_curves` drew."""
        before = len(self.html)
        self.figure(name, figure, caption)
        self.html[before:] = [f'<figure>{drawn}<figcaption class="note">{html.escape(caption)}</figcaption></figure>']

    def image(self, name: str, image: bytes | Image.Image, caption: str) -> None:
        """A PNG or JPEG, or an image that becomes a PNG, which is kept under its name as it is.

        The page itself carries it as it is shown there: in that size, and compressed.
        """
        if isinstance(image, Image.Image):
            buffer = io.BytesIO()
            image.save(buffer, "PNG", compress_level=3)
            image = buffer.getvalue()
        self.images[name], kind, words = image, image_type(image), html.escape(caption)
        small = as_shown(image)
        (width, height), data = Image.open(io.BytesIO(small)).size, base64.b64encode(small).decode()
        size = f'width="{width}" height="{height}" style="--w: {width}px"'  # its place is kept until it is loaded
        tag = f'<img loading="lazy" alt="{words}" {size} src="data:image/webp;base64,{data}">'
        self.html.append(f'<figure><div class="wide">{tag}</div><figcaption class="note">{words}</figcaption></figure>')
        self.lines.append(f"![{caption}](figures/{name}.{kind})")

    @contextmanager
    def beside(self) -> Iterator[None]:
        """Figures put on the page within the block stand side by side, where it is wide enough."""
        self.html.append('<div class="beside">')
        yield
        self.html.append("</div>")

    def prose(self, text: str) -> None:
        """Markdown as people write it: headings, lists, emphasis, code; nothing else is taken for markup."""
        self.html.append(markdown_html(text))
        self.lines.append(text.strip())

    def code(self, text: str) -> None:
        self.html.append(f"<pre>{html.escape(text)}</pre>")
        self.lines.append(f"```\n{text.strip()}\n```")

    def write(self, folder: Path, refresh: bool = False) -> Path:
        """Writes figures/*.png, report.md and report.html, whose path it returns; refresh: it looks again by itself."""
        for name, data in self.images.items():
            with atomic(folder / "figures" / f"{name}.{image_type(data)}") as temporary:
                temporary.write_bytes(data)
        write_text(folder / "report.md", "\n\n".join(self.lines) + "\n")
        head, *body = self.html or [""]
        links = [f'<a href="#{anchor(text)}">{html.escape(text)}</a>' for text in self.contents]
        contents = f"<nav>{' '.join(links)}</nav>" if len(links) > 3 else ""
        again = '<meta http-equiv="refresh" content="30">' if refresh else ""
        script = f"{SORTING}{live.SCRIPT}" if any('class="curves"' in part for part in body) else SORTING
        write_text(
            folder / "report.html",
            f'<!doctype html><html lang="en"><meta charset="utf-8">{policy(script)}<title>{html.escape(self.title)}'
            f'</title>{again}<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<style>{STYLE}{live.STYLE}</style><body>{head}{contents}{''.join(body)}<script>{script}</script></body>"
            "</html>\n",
        )
        return folder / "report.html"


def policy(script: str) -> str:
    """The page's own rule: its pictures and its script, and nothing from elsewhere."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    told = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:"
    return f"<meta http-equiv=\"Content-Security-Policy\" content=\"{told}; base-uri 'none'; form-action 'none'\">"


SHOWN_WIDTH = 1208  # px, of the page's column


def as_shown(image: bytes) -> bytes:
    """A picture as a page shows it: WebP, no wider than the page's column."""
    picture = Image.open(io.BytesIO(image)).convert("RGB")
    if picture.width > SHOWN_WIDTH:
        size = SHOWN_WIDTH, max(1, round(picture.height * SHOWN_WIDTH / picture.width))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=70)
    return buffer.getvalue()


def anchor(text: str) -> str:
    """A heading's name within a page."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"


def markdown_html(text: str) -> str:
    """A small, safe part of Markdown as HTML: all else is shown to the letter."""

    def inline(words: str) -> str:
        words = html.escape(words)
        words = re.sub(r"`([^`]+)`", r"<code>\1</code>", words)
        words = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", words)
        return re.sub(r"(?<![*\w])\*([^*\s][^*]*)\*", r"<em>\1</em>", words)

    blocks = []
    for part in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip()):
        lines = part.split("\n")
        while lines and (heading := re.match(r"(#{1,6}) +(.*)", lines[0])):
            level = min(len(heading[1]) + 2, 6)  # below the page's own
            blocks.append(f"<h{level}>{inline(heading[2])}</h{level}>")
            lines = lines[1:]
        items = [re.match(r"\s*(?:[-*+]|\d+[.)]) +(.*)", line) for line in lines]
        if lines and all(items):
            kind = "ol" if lines[0].lstrip()[0].isdigit() else "ul"
            blocks.append(f"<{kind}>{''.join(f'<li>{inline(item[1])}</li>' for item in items)}</{kind}>")
        elif lines:
            blocks.append(f"<p>{inline(' '.join(lines))}</p>")
    return "".join(blocks)
