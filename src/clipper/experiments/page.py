"""Tables and pictures in, one HTML page that needs nothing else out."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from clipper import __version__
from clipper.experiments.comparison import METRICS, Comparison
from clipper.experiments.tables import Table, number, share, tables_of

_STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --soft: #5b6470; --line: #d9dee4; --good: #00684a;
  --bad: #a63c00; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 72rem; color: var(--ink); background: #fff;
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 .25rem; }
p, li { max-width: 46rem; }
p.caption, footer { color: var(--soft); font-size: .9rem; margin: .25rem 0 .5rem; }
.scroll { overflow-x: auto; -webkit-overflow-scrolling: touch; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
.text { text-align: left; }
td.verdict { white-space: normal; min-width: 11rem; }
td:first-child, th:first-child { position: sticky; left: 0; background: #fff; min-width: 8rem;
  max-width: 42vw; white-space: normal; padding-left: 0; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; }
.better { color: var(--good); font-weight: 600; } .worse { color: var(--bad); font-weight: 600; }
ul.verdicts { padding-left: 1.2rem; }
footer { border-top: 1px solid var(--line); margin-top: 2.5rem; padding-top: .75rem; }
@media (max-width: 40rem) {
  body { padding: .75rem; font-size: .95rem; }
    /* wide pictures are read by pushing them sideways, not with a magnifying glass */
  .picture { overflow-x: auto; }
  .picture img { max-width: none; width: max(100%, calc(var(--pixels) * .55px)); }
}
"""


@dataclass(frozen=True, kw_only=True)
class Preface:
    """What stands on a page before the comparison.

    Attributes:
        table: Of what the page is about.
        picture: Name of its PNG file, what it shows, and the file's content.
        heading: Of the remarks.
        remarks: Sentences, each a point of a list.
    """

    table: Table
    picture: tuple[str, str, bytes]
    heading: str
    remarks: Sequence[str]


def page_of(
    comparison: Comparison,
    pictures: Mapping[str, tuple[str, bytes]],
    title: str,
    preface: Preface | None = None,
) -> str:
    """Returns the page.

    Args:
        comparison: What it tells.
        pictures: PNG files by name, each with what it shows.
        title: Heading.
        preface: What comes first, or None.
    """
    runs = comparison.collection.rows
    metric = METRICS[comparison.metric][1]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{len(runs)} runs of {len(comparison.normalised)} settings on "
        f"{len(comparison.collection.envs)} task{'s' * (len(comparison.collection.envs) != 1)}, "
        f"judged by the {escape(metric)}.</p>",
        "" if preface is None else _preface(preface),
        _verdicts(comparison),
    ]
    parts += [_table(table) for table in tables_of(comparison, in_full=True)]
    parts += [_picture(name, text, content) for name, (text, content) in pictures.items()]
    parts += [_settings(comparison), _how(comparison)]
    body = "\n".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n"
        f"<footer>Clipper {__version__}</footer>\n</body>\n</html>\n"
    )


def _preface(preface: Preface) -> str:
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in preface.remarks)
    return (
        f"{_table(preface.table)}\n{_picture(*preface.picture)}\n"
        f"<h2>{escape(preface.heading)}</h2>\n<ul>{remarks}</ul>\n<h2>The settings compared</h2>"
    )


def _picture(name: str, text: str, content: bytes) -> str:
    data = base64.b64encode(content).decode()
    return (
        f'<h2>{escape(text)}</h2>\n<figure class="picture" style="--pixels: {_width(content)}">'
        f'<img alt="{escape(text)}" src="data:image/png;base64,{data}"></figure>'
        f'<p class="caption">{escape(name)}</p>'
    )


def _width(png: bytes) -> int:
    """Returns the width of a PNG file, which stands at its 16th byte."""
    return int.from_bytes(png[16:20], "big")


def _verdicts(comparison: Comparison) -> str:
    """Returns what can be said, in a sentence for every setting, and what a reader has to know."""
    items = []
    for pair in comparison.pairs:
        kind = pair.verdict if pair.verdict in ("better", "worse") else "open"
        difference = (share if comparison.overall else number)(pair.difference.value)
        sign = "+" if pair.difference.value > 0 else ""
        items.append(
            f"<li><b>{escape(pair.setting)}</b> against {escape(pair.baseline)}: "
            f'<span class="{kind}">{escape(pair.verdict)}</span> (IQM {sign}{difference})</li>'
        )
    items += [f"<li>Note: {escape(note)}.</li>" for note in comparison.notes]
    return f'<ul class="verdicts">{"".join(items)}</ul>' if items else ""


def _table(table: Table) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        found = []
        for i, cell in enumerate(row):
            names = ["text"] if i < table.num_texts else []
            if tag == "td" and table.header[i] == "verdict":
                names += ["verdict", cell if cell in ("better", "worse") else "open"]
            kind = f' class="{" ".join(names)}"' if names else ""
            found.append(f"<{tag}{kind}>{escape(cell)}</{tag}>")
        return f"<tr>{''.join(found)}</tr>"

    rows = "\n".join(cells("td", row) for row in table.rows)
    return (
        f'<h2>{escape(table.title)}</h2>\n<p class="caption">{escape(table.caption)}</p>\n'
        f'<div class="scroll"><table>\n<thead>{cells("th", table.header)}</thead>\n'
        f"<tbody>{rows}</tbody>\n</table></div>"
    )


def _settings(comparison: Comparison) -> str:
    """Returns a table of what differs between the settings, if that is known."""
    configs = comparison.collection.configs
    keys = [
        (name, env)
        for env in comparison.collection.envs
        for name in comparison.normalised
        if (name, env) in configs
    ]
    names = sorted({name for key in keys for name in configs[key]})
    differing = [n for n in names if len({str(configs[key].get(n)) for key in keys}) > 1]
    if not differing:
        return ""
    table = Table(
        title="Settings",
        caption="what is not the same for all; sweep.json and each run's config.json have the rest",
        header=("setting", "task", *differing),
        rows=[
            (name, env, *(_shown(configs[name, env].get(n)) for n in differing))
            for name, env in keys
        ],
        num_texts=2,
    )
    return _table(table)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else str(value)


def _how(comparison: Comparison) -> str:
    """Returns how the numbers were made."""
    ranges = ", ".join(
        f"{env} {number(low)} to {number(high)}" for env, (low, high) in comparison.ranges.items()
    )
    rows = comparison.collection.rows
    made_by = sorted(
        {f"{row.version} ({row.commit[:8] or 'no commit'}), {row.engine}" for row in rows}
    )
    lines = [
        "IQM is the interquartile mean: of the middle half of the runs.",
        "Intervals are bootstraps that draw seeds anew within every task (arXiv 2108.13264), widened "
        "for few seeds (arXiv 1411.5279).",
        f"Normalised scores are 0 and 1 at: {ranges}.",
        "All of training favours fast learning, the last 100 episodes the end: the two scores of the "
        "PPO paper (arXiv 1707.06347, section 6.4).",
        "Further seeds: so many that a difference as large as the one seen is found at 95 % with a "
        "chance of 80 %.",
        f"Made by Clipper {'; '.join(made_by)}.",
    ]
    return "<h2>How</h2>\n<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"
