"""The table of each network, in Markdown."""

from collections.abc import Sequence
from statistics import median
from typing import Any

COLUMNS = {
    "forget": ("forget_acc", "{:.1f}"),
    "retain": ("retain_acc", "{:.1f}"),
    "test": ("test_acc", "{:.1f}"),
    "MIA AUC": ("mia_auc", "{:.1f}"),
    "average gap": ("avg_gap", "{:.2f}"),
    "time": ("time_ratio", "{:.2f}"),
}


def tables(found: dict[str, Any]) -> str:
    """The whole report; `found` holds what each network gave."""
    parts = [
        "Accuracies, AUCs and gaps in percent or points. *average gap*: the mean distance to the "
        "retrained networks in the four figures before it; that of *retrained* is from each to "
        "the other. *time*: processor seconds as a share of a retraining. Medians over the rows "
        "of a method; for the average gap also the largest.\n"
    ]
    for name, network in found.items():
        told = network["about"]
        parts.append(
            f"\n## {name}\n\n{told['class']}, {told['parameters']:,} parameters, "
            f"{told['training_samples']:,} training samples, {told['epochs']} epochs.\n"
        )
        for request in dict.fromkeys(row["request"] for row in network["rows"]):
            rows = [row for row in network["rows"] if row["request"] == request]
            count = told["forgotten"][request]
            parts.append(f"\n### {name}, {request}: {count} samples\n\n{_table(rows)}\n")
    return "".join(parts)


def line(row: dict[str, Any]) -> str:
    """A finished row, in one line."""
    figures = "  ".join(f"{head} {form.format(row[key])}" for head, (key, form) in COLUMNS.items())
    return f"{row['network']:8} {row['request']:13} {row['method']:11} {row['seed']}  {figures}"


def _table(rows: Sequence[dict[str, Any]]) -> str:
    heads = ["", *COLUMNS, "rows"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        cells = []
        for key, form in COLUMNS.values():
            values = [row[key] for row in mine]
            most = (
                f" ({form.format(max(values))})"
                if key == "avg_gap" and len(mine) > 1 and method != "retrained"
                else ""
            )
            cells.append(form.format(median(values)) + most)
        lines.append("| " + " | ".join([method, *cells, str(len(mine))]) + " |")
    return "\n".join(lines)
