"""Arcs to simpler, smoother or rectangular arcs that neighbours still share: `simplify`, `smooth`, `regularize`."""
