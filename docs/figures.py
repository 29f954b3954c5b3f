"""Draw the figures of the README: docs/flow.svg and docs/kmers.svg.

python docs/figures.py
"""

from html import escape
from pathlib import Path

STYLE = """<style>
text { font: 14px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 12px; fill: #57606a }
.base { font: 15px ui-monospace, monospace; text-anchor: middle } .plasmid { fill: #8b949e }
rect { fill: #ddf4ff; stroke: #0969da; rx: 6px } .token { rx: 3px } .odd { fill: #fff8c5; stroke: #9a6700 }
path { stroke: #57606a; fill: none; stroke-width: 1.5 } marker path { fill: #57606a }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9da7b1 } .plasmid { fill: #7d8590 } path { stroke: #9da7b1 }
  rect { fill: #0c2d6b; stroke: #58a6ff } .odd { fill: #4b2900; stroke: #d29922 } marker path { fill: #9da7b1 }
}
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 8 4 0 8z"/></marker></defs>"""
STEPS = (  # title, second line, third line
    ("rows", "sequence, label", "TSV, FASTA, Parquet"),
    ("dataset", "SQL: checks, splits,", "top 20 % by label"),
    ("shards", "k-mer ids", "in WebDataset tars"),
    ("pretraining", "BERT predicts", "masked k-mers"),
    ("fine-tuning", "BERT predicts", "expression"),
    ("predictions", "TSV, SQL, Python,", "ONNX, HTML"),
)
PLASMID, INSERT = "GACC", "ATGCTAGCCATGA"
K = 3
BASE = 26
"""Pixels per base."""


def draw(width: int, height: int, title: str, parts: list[str]) -> str:
    """Assemble an SVG file. title: text for screen readers."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">\n<title>{escape(title)}</title>\n{STYLE}\n{body}\n</svg>\n'
    )


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Make a text element. kind: its class."""
    return f'<text x="{x:g}" y="{y:g}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def draw_flow() -> str:
    """Draw the flow of data, from rows to predictions."""
    box, gap, top = 142, 22, 20
    parts = []
    for number, (title, *lines) in enumerate(STEPS):
        x = 10 + number * (box + gap)
        parts.append(f'<rect x="{x}" y="{top}" width="{box}" height="74"/>')
        parts.append(text(x + box / 2, top + 24, title, anchor="middle"))
        parts += [text(x + box / 2, top + 44 + 16 * i, line, "small", "middle") for i, line in enumerate(lines)]
        if number:
            parts.append(f'<path d="M{x - gap + 2} {top + 37}H{x - 3}" marker-end="url(#tip)"/>')
    dataset, last = (10 + number * (box + gap) + box / 2 for number in (1, len(STEPS) - 1))
    parts.append(f'<path d="M{last:g} {top + 76}v24H{dataset:g}v-21" marker-end="url(#tip)"/>')
    parts.append(text((dataset + last) / 2, top + 118, "predictions and metrics become relations", "small", "middle"))
    title = "Rows become a dataset, shards, a pretrained model, a fine-tuned model and predictions"
    return draw(10 + len(STEPS) * (box + gap), top + 128, title, parts)


def draw_tokens(start: int, step: int, row: int, name: str) -> list[str]:
    """Draw the k-mers of a reading frame (step = K), or all overlapping ones (step = 1, in K rows)."""
    sequence, parts = PLASMID + INSERT + PLASMID, [text(10, 100 + row * 34, name, "small")]
    for number, first in enumerate(range(start, len(sequence) - K + 1, step)):
        x, y = 150 + first * BASE, 84 + row * 34 + (number % K * 9 if step == 1 else 0)
        kind = "token" + (" odd" if number % 2 else "")
        height = 8 if step == 1 else 24
        parts.append(f'<rect x="{x + 1.5}" y="{y}" width="{K * BASE - 3}" height="{height}" class="{kind}"/>')
        if step > 1:
            parts.append(text(x + K * BASE / 2, y + 17, sequence[first : first + K], "base"))
    return parts


def draw_kmers() -> str:
    """Draw the reading frames and the overlapping k-mers of a short sequence."""
    sequence, inner = PLASMID + INSERT + PLASMID, range(len(PLASMID), len(PLASMID) + len(INSERT))
    parts = [
        text(150 + (i + 0.5) * BASE, 60, base, "base" if i in inner else "base plasmid")
        for i, base in enumerate(sequence)
    ]
    for first, length, name in (
        (0, len(PLASMID), "plasmid"),
        (inner.start, len(INSERT), "insert"),
        (inner.stop, len(PLASMID), "plasmid"),
    ):
        left, right = 150 + first * BASE + 4, 150 + (first + length) * BASE - 4
        parts.append(f'<path d="M{left} 38v-8H{right}v8"/>')
        parts.append(text((left + right) / 2, 22, name, "small", "middle"))
    parts.append(text(10, 60, "extended sequence", "small"))
    for frame in range(K):
        parts += draw_tokens(frame, K, frame, f"reading frame {frame}")
    parts += draw_tokens(0, 1, K, "overlapping k-mers")
    title = "A sequence as three reading frames of 3-mers, and as overlapping 3-mers"
    return draw(170 + len(sequence) * BASE, 92 + (K + 1) * 34, title, parts)


if __name__ == "__main__":
    folder = Path(__file__).resolve().parent
    (folder / "flow.svg").write_text(draw_flow(), encoding="utf-8")
    (folder / "kmers.svg").write_text(draw_kmers(), encoding="utf-8")
