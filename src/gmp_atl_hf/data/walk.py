"""Every file below a folder, also over links."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path


def walk(folder: str | os.PathLike[str], unopened: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Give every file below a folder.

    Links to folders are followed where they lead out of the folder. Those to a part of it, or to a folder that it is a
    part of, are not: they would show the same files again.

    Args:
        folder: The folder.
        unopened: Called with the error of each folder that cannot be opened; None passes over them.
    """
    followed = [os.path.realpath(folder)]

    def leads_out(link: Path) -> bool:
        target = os.path.realpath(link)
        if any(_is_in(target, one) for one in followed) or _is_in(followed[0], target):
            return False
        followed.append(target)
        return True

    for place, folders, names in os.walk(folder, onerror=unopened, followlinks=True):
        below = [Path(place, name) for name in sorted(folders)]
        folders[:] = [one.name for one in below if not one.is_symlink() or leads_out(one)]
        yield from (Path(place, name) for name in names)


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
