"""What the gate found, as a table, a sentence, JUnit XML, or annotations of GitHub."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

import pandas as pd

from fastsample.results.forms.escaping import visible
from fastsample.results.forms.sheet import Sheet, plain
from fastsample.results.gate import FAILING, UNJUDGED, Finding, Verdict, exit_code
from fastsample.results.statistics import Interval

__all__ = ["github_lines", "outcome", "sheet_of", "to_junit"]


def sheet_of(findings: Sequence[Finding], *, folded: bool = False) -> Sheet:
    """The findings as a table, those that matter first, with the outcome as its caption.

    Of those for which the store has nothing a note says what they have in common. If `folded`, those that pass are
    counted in the caption and nowhere else.
    """
    order = list(_COUNTED)
    told = [found for found in findings if not (found.missing or (folded and found.verdict == "pass"))]
    lines = [
        {
            "verdict": found.verdict, "cell": found.cell, "metric": found.metric, "baseline": _digits(found.before),
            "now": _digits(found.now), "change (95 %)": _change(found.change), "allowed": _digits(found.allowed),
            "p": "-" if found.p is None else f"{found.p:.2g}",
        }
        for found in sorted(told, key=lambda found: order.index(found.verdict))
    ]  # fmt: skip
    reasons = tuple(("", f"{found.cell}, {found.metric}: {found.why}.") for found in told if found.why)
    trained = tuple(
        ("", f"{found.cell}, {found.metric}: {'; '.join(found.training)}.") for found in told if found.training
    )
    lacking = tuple(("", line) for line in _lacking([found for found in findings if found.missing]))
    return plain(pd.DataFrame(lines), outcome(findings), (*reasons, *lacking, *trained))


def _lacking(findings: Sequence[Finding]) -> list[str]:
    """A sentence for each reason why numbers are missing, with what their cells have in common."""
    sentences = []
    for why in dict.fromkeys(found.why for found in findings):
        several = [found for found in findings if found.why == why]
        keys = list(dict.fromkeys(found.key for found in several))
        if len(keys) == 1:
            cells, what = several[0].cell, ""
        else:
            columns = [list(dict.fromkeys(filter(None, map(str, values)))) for values in zip(*keys, strict=True)]
            heads = ("model", "solver", "option", "grid", "NFE")
            fields = [_values(head, values) for head, values in zip(heads, columns, strict=True) if values]
            cells, what = f"{len(keys)} cells", f": {'; '.join(fields)}"
        metrics = ", ".join(dict.fromkeys(found.metric for found in several))
        sentences.append(f"{cells}, {metrics}: {why}{what}.")
    return sentences


def _values(head: str, values: Sequence[str]) -> str:
    return f"{head} {', '.join(values)}" if len(values) <= _MOST_NAMED else f"{len(values)} {head}s"


def outcome(findings: Sequence[Finding]) -> str:
    """The result of a check in one sentence."""
    count = Counter(finding.verdict for finding in findings)
    told = ", ".join(
        f"{count[verdict]} {text}" for verdict, text in _COUNTED.items() if count[verdict] or verdict == "regression"
    )
    return f"{_OUTCOMES[exit_code(findings)]}: {told}."


_MOST_NAMED = 8  # values of a field in a sentence
_OUTCOMES = ("Passed", "Failed", "Not comparable")
_COUNTED: dict[Verdict, str] = {
    "regression": "worse", "change": "better against the rule",
    "reference moved": "not judged because the reference moved", "not comparable": "not comparable",
    "improvement": "better", "pass": "unchanged",
}  # fmt: skip


def _digits(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if abs(value) >= 0.1 else f"{value:.2g}"


def _change(change: Interval | None) -> str:
    return "-" if change is None else f"{change.value:+.3g} [{change.low:+.3g}, {change.high:+.3g}]"


def to_junit(findings: Sequence[Finding]) -> bytes:
    """JUnit XML: a test case for each cell and metric; what was not judged is an error, what fails a failure.

    Times are those of sampling and measuring, in seconds.
    """
    verdicts = Counter(finding.verdict for finding in findings)
    failures = sum(verdicts[verdict] for verdict in FAILING)
    suite = ElementTree.Element(
        "testsuite", name="fastsample check", tests=str(len(findings)), failures=str(failures),
        errors=str(sum(verdicts[verdict] for verdict in UNJUDGED)), skipped="0",
        time=f"{sum(found.seconds for found in findings):.6f}",
    )  # fmt: skip
    for found in findings:
        case = ElementTree.SubElement(
            suite, "testcase", classname=visible(found.cell), name=visible(found.metric), time=f"{found.seconds:.6f}"
        )
        text = visible(_told(found))
        if found.verdict in FAILING:
            message = visible(_too_far(found))
            ElementTree.SubElement(case, "failure", type=found.verdict, message=message)
        elif found.verdict in UNJUDGED:
            ElementTree.SubElement(case, "error", type=found.verdict, message=visible(found.why))
        else:
            ElementTree.SubElement(case, "system-out").text = f"{found.verdict}: {text}"
    return ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)


def _told(found: Finding) -> str:
    said = f" ({'; '.join(found.training)})" if found.training else ""
    return f"{_digits(found.before)} -> {_digits(found.now)}, change {_change(found.change)}{said}"


def _too_far(found: Finding) -> str:
    return f"moved by more than the {_digits(found.allowed)} that is allowed: {_told(found)}"


def github_lines(findings: Sequence[Finding], file: str) -> list[str]:
    """Commands of GitHub's workflows that show what does not pass beside a file, a line each.

    Args:
        file: of the baseline, from the repository's root.
    """
    lines = []
    for found in findings:
        if found.verdict == "pass":
            continue
        kind = "notice" if found.verdict == "improvement" else "error"
        why = found.why if found.verdict in UNJUDGED else _too_far(found)
        place = f"file={_escaped(file, also=':,')},title={_escaped(f'fastsample check: {found.verdict}', also=':,')}"
        lines.append(f"::{kind} {place}::{_escaped(visible(f'{found.cell}, {found.metric}: {why}'))}")
    return lines


def _escaped(text: str, also: str = "") -> str:
    """Text of a workflow command: what ends it is written as its code."""
    return "".join(f"%{ord(sign):02X}" if sign in "%\r\n" + also else sign for sign in text)
