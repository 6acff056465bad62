"""What is said of the error of coarse-grained forces, in words.

Relative error: root mean square error over the root mean square of the reference forces. The seed's
scale: to 20 % good, to 30 % fair, from 50 % poor.
"""

from __future__ import annotations

GOOD, FAIR, POOR = 0.2, 0.3, 0.5


def force_verdict(relative: float) -> str:
    """The seed's word for a relative error of forces.

    >>> [force_verdict(r) for r in (0.2, 0.3, 0.4, 0.5)]
    ['good', 'fair', 'between fair and poor', 'poor']
    """
    if relative <= GOOD:
        return "good"
    if relative <= FAIR:
        return "fair"
    return "poor" if relative >= POOR else "between fair and poor"
