"""MkDocs hook: replace `<!-- attributes -->` by the rows of the inventory's attributes."""

from typing import Any

from lim_keras.inventory.attributes import (
    FAMILIARITY_ATTRIBUTES,
    OUTLINE_ATTRIBUTES,
    PIXEL_ATTRIBUTES,
    TERRAIN_ATTRIBUTES,
)

MARKER = "<!-- attributes -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Insert the rows where a page holds the marker; called by MkDocs for each page."""
    return markdown.replace(MARKER, attribute_rows()) if MARKER in markdown else markdown


def attribute_rows() -> str:
    """Return a Markdown row for each attribute, in the order of the columns."""
    attributes = (*OUTLINE_ATTRIBUTES, *PIXEL_ATTRIBUTES, *FAMILIARITY_ATTRIBUTES, *TERRAIN_ATTRIBUTES)
    return "\n".join(f"| `{one.name}` | {one.unit} | {one.meaning} |" for one in attributes)
