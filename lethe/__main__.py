"""The commands. Each speaks to people, or with `--json` to programs; what it does is elsewhere."""

import typer

from lethe import restore

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("restore-check")(restore.check)


@app.callback()
def main() -> None:
    """Lethe's commands. They read the same environment variables as beat."""


if __name__ == "__main__":
    app(prog_name="lethe")
