"""Draws the loss log of a training run as a small SVG: loss over minutes, smoothed."""

import csv
from pathlib import Path

_WIDTH, _HEIGHT, _MARGIN = 640, 240, 36
_SMOOTHED_POINTS = 5


def draw_loss_curve(log: Path, picture: Path) -> None:
    """Writes the picture of a loss log; one point per logged step, each the mean of itself and those before."""
    with log.open(newline="", encoding="utf-8") as file:
        rows = [(float(row["elapsed_s"]) / 60, float(row["loss"])) for row in csv.DictReader(file)]
    minutes, losses = [row[0] for row in rows], _smoothed([row[1] for row in rows])
    picture.write_text(_svg(minutes, losses), encoding="utf-8")


def _smoothed(losses: list[float]) -> list[float]:
    windows = (losses[max(0, end - _SMOOTHED_POINTS) : end] for end in range(1, len(losses) + 1))
    return [sum(window) / len(window) for window in windows]


def _svg(minutes: list[float], losses: list[float]) -> str:
    across, down = (_WIDTH - 2 * _MARGIN) / max(minutes), (_HEIGHT - 2 * _MARGIN) / max(losses)
    points = " ".join(
        f"{_MARGIN + minute * across:.1f},{_HEIGHT - _MARGIN - loss * down:.1f}"
        for minute, loss in zip(minutes, losses, strict=True)
    )
    marks = [f"{_text(_MARGIN + at * across, _HEIGHT - 12, f'{at} min')}" for at in range(0, int(max(minutes)) + 1, 15)]
    marks += [_text(14, _HEIGHT - _MARGIN - at * down, str(at)) for at in range(int(max(losses)) + 1)]
    marks.append(
        _text(_MARGIN + 8, _MARGIN - 12, f"loss, mean of {_SMOOTHED_POINTS} logged steps; last {losses[-1]:.3f}")
    )
    axes = f"M{_MARGIN} {_MARGIN}V{_HEIGHT - _MARGIN}H{_WIDTH - _MARGIN}"
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n<path d="{axes}" fill="none" stroke="gray"/>\n'
        f'<polyline points="{points}" fill="none" stroke="steelblue" stroke-width="1.5"/>\n'
        + "\n".join(marks)
        + "\n</svg>\n"
    )


def _text(x: float, y: float, content: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}">{content}</text>'
