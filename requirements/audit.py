"""Asks for known vulnerabilities of all that the lists beside this file name: ``make audit``.

Ends with 1 where one is known that a newer version mends. Where vulnerabilities cannot be asked for, for example behind
a mirror of the index that has no such data, it says so, and ends with 0: the hashes of the lists hold all the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from requirements.lock import ALONE, FOLDER, listed

PIP_AUDIT = str(Path(sys.executable).with_name("pip-audit"))


def main() -> None:
    """Audit, and say what was found."""
    together = {pin for path in FOLDER.glob("*.txt") if path.stem not in ALONE for pin in listed(path)}
    sets = [sorted(together), *(listed(FOLDER / f"{name}.txt") for name in ALONE)]
    reason = unknown(_audit(sets[0][:1]))  # one, since an index without such data is asked for each
    if reason is not None:
        print(f"audit: vulnerabilities cannot be asked for here, so nothing was audited ({reason})")
        return
    found = [package for pins in sets for package in _audit(pins)]
    lines, bad = judged(found)
    print("\n".join(lines))
    sys.exit(bad)


def _audit(pins: Sequence[str]) -> list[dict[str, Any]]:
    """What pip-audit tells of each package; nothing where it could not ask."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pin.partition("+")[0] for pin in pins) + "\n")
        file.flush()
        command = [PIP_AUDIT, "--requirement", file.name, "--no-deps", "--disable-pip", "--format", "json"]
        answer = subprocess.run([*command, "--progress-spinner", "off"], capture_output=True, text=True, check=False)
    return list(json.loads(answer.stdout)["dependencies"]) if answer.stdout.startswith("{") else []


def unknown(found: Sequence[dict[str, Any]]) -> str | None:
    """Why nothing is known of any of these packages; None where something is."""
    if not found:
        return "there is no answer"
    reasons = [package.get("skip_reason") for package in found]
    return reasons[0] if all(reasons) else None


def judged(found: Sequence[dict[str, Any]]) -> tuple[list[str], bool]:
    """Lines to print, and whether a vulnerability was found that a newer version mends."""
    lines, bad = [], False
    for package in found:
        for vulnerability in package.get("vulns", ()):
            fixed = ", ".join(vulnerability["fix_versions"])
            bad = bad or bool(fixed)
            mended = f"mended in {fixed}" if fixed else "not mended yet"
            lines.append(f"audit: {package['name']} {package['version']}: {vulnerability['id']}, {mended}")
    skipped = sorted(package["name"] for package in found if "skip_reason" in package)
    lines.append(f"audit: {len(found) - len(skipped)} packages asked for, {len(lines)} known vulnerabilities")
    if skipped:
        lines.append(f"audit: nothing is known of {', '.join(skipped)}")
    return lines, bad


if __name__ == "__main__":
    main()
