"""A bundle's report on the terminal: the figures, and the budget's verdicts."""

from onhand.cli.output import is_terminal, say, write, write_table
from onhand.device.report_pair import Pair
from onhand.device.report_records import Report
from onhand.device.report_summary import evaluation_rows
from onhand.device.report_view import ReportCell, report_headline, report_limits, report_rows

__all__ = ["write_pair_table", "write_report_table"]

_TONES = {"better": "better", "worse": "worse", "same": "same within the spread", "": ""}


def write_report_table(report: Report) -> None:
    """Write every variant beside the original, the limits, and how it was measured.

    Args:
        report: the evidence.
    """
    write(f"{report_headline(report)}\n")
    for variant in report.variants:
        write_table(
            [variant, "compressed", "original", "ratio", ""],
            [
                (row.name, _cell(row.variant), _cell(row.original), row.ratio, row.tone)
                for row in report_rows(report, variant=variant)
            ],
        )
    if limits := report_limits(report):
        write_table(
            ["budget", "limit", "found", "verdict"],
            [
                (row.key, row.limit, row.found, f"{'holds' if row.holds else 'FAILS'}: {row.why}")
                for row in limits
            ],
        )
    if rows := evaluation_rows(report):
        write_table(
            ["evaluation", "ratio", "", "measured", "the rule says", "rule is off by"],
            [
                (row.title, row.ratio, row.outcome, row.measured, row.predicted, row.off)
                for row in rows
            ],
        )
        for row in rows:
            if row.missing:
                say(f"note: {row.title.lower()}: {row.missing}")
    engine = report.engine
    write(
        f"measured with {engine.name} ({engine.package} {engine.version}, {engine.threads} "
        f"threads) on {report.device.processor}, {report.measured_at:%Y-%m-%d %H:%M} UTC\n"
    )
    if report.missing:
        say(f"note: figures of the original: {report.missing}")


def write_pair_table(pair: Pair) -> None:
    """Write two reports side by side.

    Args:
        pair: the two.
    """
    write_table(
        ["", *pair.names, "ratio", ""],
        [
            (
                row.name,
                _cell(row.first),
                _cell(row.second),
                row.ratio,
                ", ".join(filter(None, (_TONES[row.tone], row.remark))),
            )
            for row in pair.rows
        ],
    )


def _cell(cell: ReportCell) -> str:
    # A terminal is narrow, so the detail goes below; a file has room for one line.
    return f"{cell.value}\n{cell.detail}".rstrip() if is_terminal() else cell.text
