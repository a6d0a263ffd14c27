"""Ask for known vulnerabilities of the pinned packages, and say aloud when nobody answered.

pip-audit exits with 0 when an index knows none of the packages, which is what a mirror without
PyPI's vulnerability data looks like, and with 1 both for a finding and for a network that is not
there. So its report is read: a finding fails, an answer that does not come must not.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

SERVICES = ("pypi", "osv")  # the second is asked when the first knows nothing
LIMIT_S = 300
TIMEOUT_S = 5  # for one answer


def main() -> int:
    """Ask the services in turn; 1 where one of them knows of a vulnerability."""
    reasons = []
    for service in SERVICES:
        report, error = ask(service)
        code, said = verdict(report)
        if code is not None:
            print(f"audit: {said} ({service})")
            return code
        reasons.append(f"{service}: {error or said}")
    print(f"audit: NOTHING WAS AUDITED, no service answered. {'; '.join(reasons)}")
    return 0


def ask(service: str) -> tuple[dict[str, Any], str]:
    """The report of pip-audit, empty if there is none, and its last word on why."""
    command = ["pip-audit", "--requirement", "constraints.txt", "--no-deps", "--disable-pip"]
    command += ["--vulnerability-service", service, "--timeout", str(TIMEOUT_S)]
    command += ["--progress-spinner", "off", "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
        report: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        return {}, f"no answer within {LIMIT_S} s"
    except ValueError:
        return {}, done.stderr.strip().rpartition("\n")[2]
    return report, ""


def verdict(report: dict[str, Any]) -> tuple[int | None, str]:
    """The exit code that a report means, None where it answers for no package at all, and its sentence."""
    packages = report.get("dependencies", [])
    answered = [package for package in packages if "skip_reason" not in package]
    found = [(package, weak) for package in answered for weak in package["vulns"]]
    if not answered:
        return None, "knows none of the packages" if packages else "no report"
    if found:
        lines = [
            f"{package['name']} {package['version']}: {weak['id']}, "
            f"mended in {', '.join(weak['fix_versions']) or 'no version yet'}"
            for package, weak in found
        ]
        return 1, "\n  ".join([f"{len(found)} known vulnerabilities", *lines]) + "\n "
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    skipped = f", but not {', '.join(unknown)}" if unknown else ""
    return 0, f"no known vulnerability in {len(answered)} of {len(packages)} pinned packages{skipped}"


if __name__ == "__main__":
    sys.exit(main())
