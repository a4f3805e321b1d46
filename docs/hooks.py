"""Makes links to files outside docs/ work in the site: the files go into it, and the links lead to them there."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from griffe import Extension
from mkdocs.structure.files import File, InclusionLevel

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Any, config: Any) -> Any:
    """Add every file outside docs/ that a page links to, and those that these link to."""
    docs = Path(config.docs_dir)
    pages = [docs / file.src_uri for file in files.documentation_pages()]
    for page in pages:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            place = (page.parent / link).resolve()
            if not place.is_file() or not place.is_relative_to(docs.parent) or place.is_relative_to(docs):
                continue
            uri = place.relative_to(docs.parent).as_posix()
            if uri in files.src_uris:
                continue
            files.append(File.generated(config, uri, abs_src_path=str(place), inclusion=InclusionLevel.NOT_IN_NAV))
            if place.suffix == ".md":
                pages.append(place)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Point the links of one page to where the files are in the site."""
    docs = Path(config.docs_dir)
    home = Path(page.file.abs_src_path).parent

    def moved(link: re.Match[str]) -> str:
        place = (home / link[1]).resolve()
        for root in (docs, docs.parent):
            if place.is_file() and place.is_relative_to(root):
                return os.path.relpath(place.relative_to(root), Path(page.file.src_uri).parent)
        return link[1]

    return LINK.sub(moved, markdown)


class Examples(Extension):
    """Shows `Example:` in docstrings as code, as `Examples:` is shown."""

    def on_instance(self, *, obj: Any, **_: Any) -> None:
        """Rename the section before it is read."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
