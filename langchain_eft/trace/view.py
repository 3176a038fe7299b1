"""Traces as an HTML page, as the output of a notebook cell, and in the colors of a terminal.

The background of a token shows how far the behaviors moved p away from the base. Its underline shows how far
the base moved p away from the small mixture. A token may have both.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from rich.color import Color, blend_rgb
from rich.color_triplet import ColorTriplet
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.style import Style
from rich.text import Text

from langchain_eft.trace.tokens import BASE_NAME, Change, TracedToken, TraceSummary

_ORANGE, _BLUE, _PAPER = ColorTriplet(255, 140, 0), ColorTriplet(90, 150, 255), ColorTriplet(255, 255, 255)
_BLACK = Color.from_rgb(0, 0, 0)
_NOTICEABLE = 0.1

_STYLE = """
.eft-trace { font: 1rem/1.9 system-ui, sans-serif; max-width: 46rem; }
.eft-trace .answer { position: relative; white-space: pre-wrap; overflow-wrap: anywhere; }
.eft-trace .token { cursor: default; border-radius: 3px; outline-offset: 1px;
  background: rgb(255 140 0 / calc(var(--behaviors) * 60%)) padding-box;
  border-bottom: 3px solid rgb(60 130 255 / calc(var(--base) * 100%)); }
.eft-trace .hidden { font: .75em ui-monospace, monospace; color: GrayText; margin-left: .3em; }
.eft-trace .made { display: none; position: absolute; left: 0; z-index: 1; width: max-content;
  max-width: 100%; overflow-x: auto; margin-top: .3rem; padding: .6rem .8rem; white-space: normal;
  font: .8rem/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText;
  border: 1px solid GrayText; border-radius: 6px; box-shadow: 0 4px 16px rgb(0 0 0 / 25%); }
.eft-trace .token:hover > .made, .eft-trace .token:focus > .made { display: block; }
.eft-trace table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.eft-trace th, .eft-trace td { padding: .1rem .5rem; text-align: right; border: 0; background: none;
  font-weight: normal; color: inherit; }
.eft-trace th:first-child, .eft-trace td:first-child { text-align: left; }
.eft-trace thead th { opacity: .65; }
.eft-trace code { font: .95em ui-monospace, monospace; background: none; color: inherit; white-space: pre; }
.eft-trace .notes { font-size: .8rem; line-height: 1.6; margin-top: 1.2rem; }
.eft-trace .swatch { padding: 0 .4em; border-radius: 3px; }
.eft-trace .by-behaviors { background: rgb(255 140 0 / 60%); }
.eft-trace .by-base { border-bottom: 3px solid rgb(60 130 255); border-radius: 3px 3px 0 0; }
"""


def document(tokens: Sequence[TracedToken], pieces: Sequence[str], summary: TraceSummary) -> str:
    """A whole page that loads nothing else.

    Args:
        tokens: The answer's tokens.
        pieces: What each token adds to the text.
        summary: The trace in a few numbers.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>EFT trace</title>'
        "<style>:root { color-scheme: light dark; } body { margin: 2rem auto; max-width: 46rem; "
        f"padding: 0 1rem 14rem; }}</style></head>\n<body>{fragment(tokens, pieces, summary)}</body></html>\n"
    )


def fragment(tokens: Sequence[TracedToken], pieces: Sequence[str], summary: TraceSummary) -> str:
    """A part of a page, such as the output of a notebook cell.

    Args:
        tokens: The answer's tokens.
        pieces: What each token adds to the text.
        summary: The trace in a few numbers.
    """
    spans = "".join(map(_span, tokens, pieces))
    return (
        f'<div class="eft-trace"><style>{_STYLE}</style>\n<div class="answer">{spans}</div>\n'
        f'<div class="notes">{_legend()}{_summary(summary)}</div></div>'
    )


def _span(token: TracedToken, piece: str) -> str:
    hidden = not piece
    text = f"⟨{escape(token.token)}⟩" if hidden else escape(piece).replace("\n", "↵\n")
    kind = "token hidden" if hidden else "token"
    by_behaviors, by_base = _values(token)
    return (
        f'<span class="{kind}" tabindex="0" style="--behaviors:{by_behaviors:.3f};--base:{by_base:.3f}">'
        f'{text}<span class="made">{_made(token)}</span></span>'
    )


def _made(token: TracedToken) -> str:
    """The contributions to a token, as a table."""
    rows = [_row("EFT", f"{token.logprob:.2f}", "", None)]
    rows.append(_row(BASE_NAME, f"{token.base:.2f}", "", token.from_small))
    if token.small is not None:
        rows.append(_row("small mixture", f"{token.small:.2f}", "", None))
    for name, part in token.behaviors.items():
        logprobs = f"{part.tuned:.2f} / {part.reference:.2f}"
        gate = {None: "", True: ", gate open", False: ", gate closed"}[part.opened]
        title = f"{part.weight:g} · {name} (F / S{gate})"
        rows.append(_row(title, logprobs, f"{part.contribution:+.2f}", part))
    head = "".join(f"<th>{title}</th>" for title in ("", "log p", "adds", "changed", "up", "down"))
    return f"<code>{_quoted(token.token)}</code><table><thead><tr>{head}</tr></thead>{''.join(rows)}</table>"


def _row(name: str, logprobs: str, adds: str, change: Change | None) -> str:
    cells = [escape(name), logprobs, adds]
    if change is not None:
        cells.append(f"{change.total_variation:.2f}")
        cells += [f"<code>{_quoted(end.token)}</code> {end.change:+.2f}" for end in (change.up, change.down)]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _quoted(token: str) -> str:
    return escape(repr(token)[1:-1]).replace(" ", "␣")


def _legend() -> str:
    return (
        '<div><span class="swatch by-behaviors">background</span> what the behaviors changed of the base; '
        '<span class="swatch by-base">underline</span> what the base changed of the small mixture '
        "(total variation, 0 to 1). Point at a token to see its contributions.</div>"
    )


def _summary(summary: TraceSummary) -> str:
    return f"<div>{escape(str(summary)).replace(chr(10), '<br>')}</div>"


def terminal(tokens: Sequence[TracedToken], pieces: Sequence[str], summary: TraceSummary) -> Group:
    """The answer in colors, and what they mean.

    Args:
        tokens: The answer's tokens.
        pieces: What each token adds to the text.
        summary: The trace in a few numbers.
    """
    text = Text()
    for token, piece in zip(tokens, pieces, strict=True):
        text.append(piece, style(token))
    return Group(text, _Legend(), Text(str(summary)))


class _Legend:
    """What the colors mean, where there are colors."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if console.color_system and not console.no_color:
            behaviors, base = (_style(color, 1) for color in (_ORANGE, _BLUE))
            yield Text.assemble(("changed by behaviors", behaviors), " ", ("changed by the base", base))


def style(token: TracedToken) -> Style:
    """Orange where the behaviors changed more, blue where the base did; stronger for larger changes."""
    by_behaviors, by_base = _values(token)
    strongest = max(by_behaviors, by_base)
    if strongest < _NOTICEABLE:
        return Style()
    return _style(blend_rgb(_ORANGE, _BLUE, by_base / (by_base + by_behaviors)), strongest)


def _style(color: ColorTriplet, strength: float) -> Style:
    return Style(color=_BLACK, bgcolor=Color.from_triplet(blend_rgb(_PAPER, color, strength)))


def _values(token: TracedToken) -> tuple[float, float]:
    """What the behaviors changed of the base, and what the base changed of the small mixture."""
    by_base = token.from_small.total_variation if token.from_small else 0.0
    return token.from_base.total_variation, by_base
