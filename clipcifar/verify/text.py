"""`clipcifar verify` as text: published numbers beside ours, and what a mismatch usually means."""

from __future__ import annotations

from clipcifar.core.counts import count_of
from clipcifar.evaluation.words import points
from clipcifar.render.table import markdown_table
from clipcifar.verify import mismatch
from clipcifar.verify.verification import CLOSE, Check, Skipped, Verification


def lines(verification: Verification, *, num_classes: int) -> list[str]:
    """The whole answer.

    Args:
        verification: what was compared.
        num_classes: C.
    """
    totals = [check for check in verification.checks if not check.class_name]
    classes = [check for check in verification.checks if check.class_name]
    notes = [_skipped("not compared", item) for item in verification.skipped]
    notes += [_skipped("beyond this run", item) for item in verification.beyond]
    notes += [remark for check in totals if (remark := _remark(check))]
    causes = []
    failed = [check for check in verification.checks if not check.passed]
    if failed:
        fits, others = mismatch.causes(verification.checks, num_classes=num_classes)
        causes = ["What a mismatch usually means; what fits this one comes first:"]
        causes += [f"  -> {cause}" for cause in fits] + [f"     {cause}" for cause in others]
    blocks = [
        _table(totals) if totals else [],
        ["Within the classes:", "", *_table(classes)] if classes else [],
        notes,
        causes,
        [f"{count_of(len(verification.checks), 'number')} compared, {len(failed)} failed. {_LEVELS}"],
    ]
    shown = [line for block in blocks if block for line in (*block, "")]  # one blank line between two blocks
    return shown[:-1]


_LEVELS = (
    "What passes is binomial, at 5 % over all of them together: a true reproduction fails somewhere "
    "in at most 1 of 20 runs."
)


def _skipped(kind: str, item: Skipped) -> str:
    return f"{kind}: {item.what}, published {'–'.join(item.published)}: {item.why}"


def _remark(check: Check) -> str:
    """What a zero-shot number calls for that passes, but is further away than rounding explains."""
    far = abs(check.difference) > max(CLOSE, 1.5 / check.n)  # one image may differ on another processor
    if check.method != "zero_shot" or not check.passed or not far:
        return ""
    return (
        f"note: {check.what} passes, but the same weights on the same images should agree within about "
        f"{100 * CLOSE:.1f} points; it is {points(check.difference, 2)} away from {check.source}."
    )


def _table(checks: list[Check]) -> list[str]:
    header = ["number", "class", "source", "published", "ours", "points", "passes from", "to", ""]
    columns = [1] if not any(check.class_name for check in checks) else [2]
    rows = [
        [
            check.what,
            check.class_name,
            check.source,
            "–".join(check.published),
            f"{check.accuracy:.4f}",
            f"{round(100 * check.difference, 2) + 0.0:+.2f}",
            f"{check.low:.4f}",
            f"{check.high:.4f}",
            "ok" if check.passed else "FAIL",
        ]
        for check in checks
    ]

    def kept(cells: list[str]) -> list[str]:
        return [cell for i, cell in enumerate(cells) if i not in columns]

    return markdown_table(kept(header), [kept(row) for row in rows], text_columns=2)
