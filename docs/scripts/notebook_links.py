"""MkDocs hook: let the links of a notebook lead to pages, as MkDocs does for Markdown only."""

import posixpath
import re
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r'href="(?!https?:)([^"#]+\.md)(?=["#])')


def on_page_content(html: str, page: Any, files: Any, **_: Any) -> str:
    """Replace links to Markdown files by links to their pages; called by MkDocs for each page.

    Raises:
        PluginError: a link leads nowhere.
    """
    if not page.file.src_uri.endswith(".ipynb"):
        return html

    def to_page(link: re.Match[str]) -> str:
        source = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link[1]))
        target = files.get_file_from_path(source)
        if target is None:
            raise PluginError(f"{page.file.src_uri}: the link {link[1]} leads nowhere.")
        return f'href="{target.url_relative_to(page.file)}'

    return _LINK.sub(to_page, html)
