"""What the LaTeX form of a table has of its own: the document around it, and heads as short as those of papers."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["DOCUMENT", "short_heads"]

DOCUMENT = r"""% For pdflatex. To paste it take \begin{table} to \end{table}; it needs booktabs and graphicx.
\documentclass{article}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{booktabs,graphicx}
\pagestyle{empty}
\begin{document}
\begin{table}
\centering
CAPTION\sbox0{%
\begin{tabular}{COLUMNS}
\toprule
HEAD\midrule
BODY\bottomrule
\end{tabular}}%
% No wider than the text, and no higher than most of it.
\ifdim\wd0>\linewidth\sbox0{\resizebox{\linewidth}{!}{\usebox0}}\fi
\ifdim\dimexpr\ht0+\dp0>.75\textheight\sbox0{\resizebox*{!}{.75\textheight}{\usebox0}}\fi
\usebox0
\par\smallskip
\begin{minipage}{\wd0}\footnotesize\raggedright
NOTES\end{minipage}
\end{table}
\end{document}
"""

_METRIC = re.compile(r"([\w-]+)(\[[^\]]+\])?(@\d+)?( [↑↓])?")


def short_heads(heads: Iterable[str]) -> dict[str, str]:
    """For heads that name a metric in full, such as `fd[cifar10-resnet]@1000 ↓`, the shortest that tells them apart."""
    matches = {head: _METRIC.fullmatch(head) for head in heads}
    found = {head: match for head, match in matches.items() if match and (match[2] or match[3])}
    short = {}
    for head, match in found.items():
        kind, extractor, count, arrow = (part or "" for part in match.groups())
        others = [other for other in found.values() if other[1] == kind and other is not match]
        told = kind + extractor * any((other[2] or "") != extractor for other in others)
        told += count * any((other[2] or "") == extractor and (other[3] or "") != count for other in others)
        if told + arrow != head:
            short[head] = told + arrow
    return short
