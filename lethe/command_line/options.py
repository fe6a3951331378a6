"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from lethe.schemas.requests import OfUnknown

AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")
]
SampleIds = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ID]...",
        help="Ids of samples; `-` reads them from standard input, one per line. Arguments stay in "
        "the shell's history: better use a file.",
        show_default=False,
    ),
]
FromFile = Annotated[
    Path | None,
    typer.Option("--from", metavar="FILE", help="Read ids from a file, one per line."),
]
FromParquet = Annotated[
    Path | None,
    typer.Option(
        "--parquet",
        metavar="FILE",
        help="Read ids from a column of a Parquet file (needs lethe\\[parquet]).",
    ),
]
Column = Annotated[
    str, typer.Option("--column", metavar="NAME", help="The column that has the sample ids.")
]
Subjects = Annotated[
    list[str] | None,
    typer.Option(
        "--subject",
        metavar="WHO",
        help="A person, account or household: all of its samples, as the dataset's group column "
        "says. May be repeated. Stays in the shell's history: better use a file.",
    ),
]
SubjectsFrom = Annotated[
    Path | None,
    typer.Option(
        "--subjects-from",
        metavar="FILE",
        help="Read subjects from a file, one per line; `-` reads standard input.",
    ),
]
UnknownSubjects = Annotated[
    OfUnknown,
    typer.Option(
        "--unknown-subjects",
        help="If the dataset has no sample of a subject: refuse, or answer, so that it is "
        "certified that nothing was found.",
    ),
]
OfModel = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="The model that is to forget."),
]
OfDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset", "-d", metavar="NAME", help="Every model of this dataset is to forget."
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", min=0, help="Wait so long at most.", show_default="no limit"
    ),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, help="Show so many at most.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is settled.")]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Wait, and show the progress.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write into this file.", dir_okay=False),
]
