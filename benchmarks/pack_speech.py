"""Cuts a corpus with a table into parts below a size, for machines that only take small packages, and joins them again.

    python benchmarks/pack_speech.py split speech/metadata.csv parts --mebibytes 30
    python benchmarks/pack_speech.py join parts joined

A part is a folder `part-1`, `part-2`, … with its recordings and the rows that belong to them, so each is a corpus by
itself. `join` takes the parts that are there: with some missing it makes a smaller corpus, and says of how many hours
if the table has a column `duration`. Recordings are linked where the file system can, and copied elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

TABLE = "metadata.csv"
MEBIBYTE = 2**20

Row = dict[str, str]


def read_table(path: Path, column: str) -> list[Row]:
    """Rows of a CSV file that has the column with the files."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if column not in (reader.fieldnames or ()):
        raise SystemExit(f"{path} has no column {column}, only {', '.join(reader.fieldnames or ())}")
    return rows


def write_corpus(folder: Path, rows: list[Row], source: Iterable[Path], column: str) -> None:
    """Recordings, the table last: a folder that has one is whole."""
    for row, file in zip(rows, source, strict=True):
        target = folder / row[column]
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            continue
        try:
            os.link(file, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, target)
    partial = folder / f"{TABLE}.partial"
    with partial.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(folder / TABLE)


def split(table: Path, target: Path, mebibytes: float, column: str) -> list[Path]:
    """Cut in the table's order; the parts' folders. A single recording above the size is refused."""
    if target.exists() and any(target.iterdir()):
        raise SystemExit(f"{target} is not empty: name a new folder, so that no old part stays among the new ones")
    parts: list[list[Row]] = [[]]
    room = limit = mebibytes * MEBIBYTE
    for row in read_table(table, column):
        size = (table.parent / row[column]).stat().st_size + sum(len(value.encode()) + 1 for value in row.values())
        if size > limit:
            raise SystemExit(f"{row[column]} alone has {size / MEBIBYTE:.1f} MiB, a part {mebibytes:g}")
        if size > room:
            parts.append([])
            room = limit
        parts[-1].append(row)
        room -= size
    if not parts[0]:
        raise SystemExit(f"{table} has no rows")
    folders = [target / f"part-{number}" for number in range(1, len(parts) + 1)]
    for folder, rows in zip(folders, parts, strict=True):
        write_corpus(folder, rows, [table.parent / row[column] for row in rows], column)
    return folders


def join(source: Path, target: Path, column: str) -> Path:
    """One corpus of the parts that are there; its table."""
    tables = sorted(source.glob(f"*/{TABLE}"), key=lambda path: (len(path.parent.name), path.parent.name))
    if not tables:
        raise SystemExit(f"{source} has no folder with a {TABLE}: make parts with `split`")
    rows, files = [], []
    for table in tables:
        for row in read_table(table, column):
            rows.append(row)
            files.append(table.parent / row[column])
    if len(names := {row[column] for row in rows}) < len(rows):
        raise SystemExit(f"{source}: {len(rows)} rows name {len(names)} recordings, from two splittings")
    write_corpus(target, rows, files, column)
    hours = f", {sum(float(row['duration']) for row in rows) / 3600:.2f} h" if "duration" in rows[0] else ""
    print(f"joined {len(tables)} parts: {len(rows)} recordings{hours}")
    return target / TABLE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--column", default="file_name", help="of the table, with the recordings' paths")
    verbs = parser.add_subparsers(dest="verb", required=True)
    cut = verbs.add_parser("split")
    cut.add_argument("table", type=Path)
    cut.add_argument("target", type=Path)
    cut.add_argument("--mebibytes", type=float, default=30.0)
    whole = verbs.add_parser("join")
    whole.add_argument("source", type=Path)
    whole.add_argument("target", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "join":
        join(arguments.source, arguments.target, arguments.column)
        return
    for folder in split(arguments.table, arguments.target, arguments.mebibytes, arguments.column):
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{folder}: {size / MEBIBYTE:.1f} MiB")


if __name__ == "__main__":
    main()
