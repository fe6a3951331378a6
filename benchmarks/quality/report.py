"""The tables and the picture of a finished run."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("agg")

from matplotlib import pyplot as plt

COLUMNS = {
    "forget": ("forget_acc", "{:.1f}"),
    "retain": ("retain_acc", "{:.1f}"),
    "test": ("test_acc", "{:.1f}"),
    "MIA AUC": ("mia_auc", "{:.1f}"),
    "average gap": ("avg_gap", "{:.2f}"),
    "worst": ("avg_gap", "{:.2f}"),
    "KL": ("kl_oracle", "{:.2f}"),
    "time": ("time_ratio", "{:.2f}"),
}
FURTHER = {
    "MIA margin": ("mia_auc_margin", "{:.1f}"),
    "per sample": ("mia_auc_per_sample", "{:.1f}"),
    "DA forget": ("da_forget", "{:.1f}"),
    "DA hold-out": ("da_holdout", "{:.1f}"),
    "DA gap": ("da_gap", "{:+.2f}"),
    "overlap": ("subspace_overlap", "{:.1f}"),
    "probe": ("probe_accuracy_gap", "{:+.1f}"),
    "F1": ("probe_f1_gap", "{:+.1f}"),
    "NMI": ("probe_nmi_gap", "{:+.1f}"),
    "KL test": ("kl_oracle_test", "{:.2f}"),
    "agreement": ("agreement", "{:.1f}"),
    "test loss": ("test_loss", "{:.2f}"),
    "lowest logit": ("lowest_logit", "{:.1f}"),
    "log p": ("class_log_probability", "{:.1f}"),
    "head row": ("head_row", "{:.2f}"),
    "relearn": ("relearn_epochs", "{:.0f}"),
    "peak MiB": ("peak_mib", "{:.0f}"),
}
WORST = "worst"
SPREADS = {
    "forget": ("spread_forget_acc", "{:+.1f}"),
    "retain": ("spread_retain_acc", "{:+.1f}"),
    "test": ("spread_test_acc", "{:+.1f}"),
    "MIA AUC": ("spread_mia_auc", "{:+.1f}"),
}
SHORT = {
    name: COLUMNS[name]
    for name in ("forget", "retain", "test", "MIA AUC", "average gap", "KL", "time")
} | {"DA gap": FURTHER["DA gap"]}

Form = dict[str, tuple[str, str]]
"""A column's heading, and the field and format of its values."""


def tables(found: dict[str, Any]) -> str:
    """The whole report in Markdown."""
    parts = [
        "Accuracies, AUCs, DA, overlap, agreement and the distances between them in percent or "
        "points; KL to the oracles in nats, on forget samples where nothing else is said; *time* "
        "as a share of retraining; *relearn* in epochs, at most 4. Medians over the seeds; *worst* "
        "is the largest average gap of a seed. *per sample*, *probe*, *F1* and *NMI* are those of "
        "the audit, forget samples against the audit half of the hold-out. *test loss* is in "
        "nats. Of a removed class: the lowest logit that a sample gets for it, its mean "
        "log-probability on test samples of the others (*log p*), and the norm of its row in the "
        "head over the mean of the other rows.\n"
    ]
    for scenario in dict.fromkeys(row["scenario"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["scenario"] == scenario]
        parts.append(f"\n### {scenario}\n\n{_table(rows, COLUMNS)}\n\n{_table(rows, FURTHER)}")
        parts.append(
            "\nDistance to the mean oracle in standard deviations of the oracles (at least 0.1 "
            f"points):\n\n{_table(rows, SPREADS)}"
        )
    for title, key in (
        ("Ablations (dev scenarios, out-of-sample)", "ablations"),
        ("Targets of the original's own (dev scenarios)", "targets"),
        ("More and less work (dev scenarios, out-of-sample)", "budgets"),
        ("What a job tries after the verdict `fail`", "escalated"),
    ):
        parts.append(f"\n### {title}\n")
        tried = [row for variants in found[key].values() for row in variants]
        for scenario in dict.fromkeys(row["scenario"] for row in tried):
            rows = [
                row | {"method": name}
                for name, variants in found[key].items()
                for row in variants
                if row["scenario"] == scenario
            ]
            parts.append(f"\n{scenario}\n\n{_table(rows, SHORT)}")
    parts.append(f"\n### Calibration of the audit\n\n{_calibration(found['calibration'])}")
    return "\n".join(parts) + "\n"


def plot(found: dict[str, Any], path: Path) -> None:
    """Plot average gap against time: all methods with three seeds, and our budgets."""
    names = ("random 10 %", "class")
    figure, panels = plt.subplots(1, len(names) + 1, figsize=(15, 4.5))
    for panel, scenario in zip(panels[:-1], names, strict=True):
        rows = [row for row in found["rows"] if row["scenario"] == scenario]
        for method, mine in _by_method(rows).items():
            time, gap = (_median(mine, key) for key in ("time_ratio", "avg_gap"))
            panel.scatter(time, gap, marker="*" if method.startswith("Lethe") else "o")
            panel.annotate(
                method, (time, gap), fontsize=7, xytext=(3, 3), textcoords="offset points"
            )
        panel.set(title=scenario)
    for scenario in ("dev random", "dev class"):
        points = sorted(
            (row["time_ratio"], row["avg_gap"], name)
            for name, variants in found["budgets"].items()
            for row in variants
            if row["scenario"] == scenario
        )
        panels[-1].plot([x for x, *_ in points], [y for _, y, _ in points], "o-", label=scenario)
        for time, gap, name in points:
            panels[-1].annotate(
                name, (time, gap), fontsize=7, xytext=(3, 3), textcoords="offset points"
            )
    panels[-1].set(title="more and less work")
    panels[-1].legend()
    for panel in panels:
        panel.set(xlabel="time / retraining", ylabel="average gap, points")
        panel.set_yscale("symlog", linthresh=1)
        panel.set_ylim(bottom=0)
    figure.tight_layout()
    figure.savefig(path, dpi=120, metadata={"Software": None})
    plt.close(figure)


def _table(rows: Sequence[dict[str, Any]], columns: Form) -> str:
    heads = ["", *columns, "verdict", "seeds"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for method, mine in _by_method(rows).items():
        cells = [method]
        for name, (key, form) in columns.items():
            values = [row[key] for row in mine if row.get(key) is not None]
            value = (max if name == WORST else statistics.median)(values) if values else None
            cells.append("" if value is None else form.format(value))
        verdicts = [row.get("verdict", "") for row in mine]
        told = ", ".join(f"{verdicts.count(v)} {v}" for v in dict.fromkeys(verdicts) if v)
        lines.append("| " + " | ".join([*cells, told, str(len(mine))]) + " |")
    return "\n".join(lines)


def _calibration(summary: dict[str, Any]) -> str:
    lines = [
        f"All: {_counted(summary)}\n",
        f"Held out when the audit was chosen: {_counted(summary['held_out'])}\n",
        "| scenario | model | pass | fail | no_power |",
        "|---|---|---|---|---|",
    ]
    for scenario, kinds in summary["by_scenario"].items():
        for kind, counts in kinds.items():
            told = " | ".join(str(counts.get(v, 0)) for v in ("pass", "fail", "no_power"))
            lines.append(f"| {scenario} | {kind} | {told} |")
    return "\n".join(lines)


def _counted(counts: dict[str, Any]) -> str:
    return (
        f"{counts['cases']} audits of retrained models, {counts['with_power']} of them with "
        f"power: {100 * counts['retrain_pass_rate']:.1f} % passed. {counts['wrong_cases']} audits "
        f"of originals and cheats: {counts['wrong_passes']} passed."
    )


def _by_method(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["method"], []).append(row)
    return found


def _median(rows: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.median(row[key] or 0 for row in rows)
