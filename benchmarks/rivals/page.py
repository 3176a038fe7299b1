"""Writing a table into a page, between two markers."""

from __future__ import annotations

from pathlib import Path

BEGIN = "<!-- written by python -m benchmarks.rivals -->"
END = "<!-- end of what benchmarks.rivals has written -->"


def replace_between_markers(page: Path, text: str) -> None:
    """Replace what stands between the markers.

    Raises:
        ValueError: The page does not have each marker once.
    """
    content = page.read_text(encoding="utf-8")
    if content.count(BEGIN) != 1 or content.count(END) != 1:
        raise ValueError(f"{page} must have these two lines once each: {BEGIN} and {END}")
    before, rest = content.split(BEGIN)
    _, after = rest.split(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
