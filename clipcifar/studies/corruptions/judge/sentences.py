"""Parts of the sentences that say what was found."""

from __future__ import annotations

from clipcifar.studies.corruptions.images.generated import SEVERITIES
from clipcifar.studies.corruptions.images.kinds import BENCHMARK
from clipcifar.studies.corruptions.images.published import TEST_IMAGES
from clipcifar.studies.corruptions.judge import naming
from clipcifar.studies.corruptions.judge.outcome import REFERENCE, Findings
from clipcifar.studies.corruptions.judge.robustness import Share


def extremes(findings: Findings) -> str:
    """Under which corruption of the first mean zero-shot loses most, and least."""
    means = findings.robustness[REFERENCE].accuracy.mean(axis=1)
    ordered = sorted(findings.over[findings.first], key=lambda row: float(means[row]))
    if len(ordered) == 1:
        return ""
    worst, best = (
        f"{naming.spoken(findings.names[row])} (to {percent(means[row])} %)"
        for row in (ordered[0], ordered[-1])
    )
    return f", most under {worst} and least under {best}"


def protocol(findings: Findings) -> str:
    """Whether the mean over published images can be set beside a published mean."""
    source = findings.source
    whole = f"{len(BENCHMARK)} corruptions, {SEVERITIES} severities and {TEST_IMAGES:,} images"
    if findings.is_published_protocol:
        error = 1 - findings.robustness[REFERENCE].over["benchmark"].mean.value
        return (
            f"Means published for {source} are over the same {whole}; as an error it is {percent(error)} %."
        )
    looked_at = len(findings.over.get("benchmark", [])), len(findings.severities), len(findings.rows)
    return (
        f"Means published for {source} are over {whole}, here are {looked_at[0]}, {looked_at[1]} and "
        f"{looked_at[2]:,}: do not compare the two."
    )


def percent(share: float) -> str:
    """A share in per cent, without the sign."""
    return f"{100 * share:.1f}"


def share_text(share: Share) -> str:
    """The same with its interval."""
    return f"{percent(share.value)} [{percent(share.low)}, {percent(share.high)}]"
