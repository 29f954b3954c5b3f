"""Reader of numbers in the SVG of a figure: positions become values by the tick labels of the axes."""

import re
import xml.etree.ElementTree as ET

import numpy as np

NUMBER = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"


def read_figures(page):
    """Read the axes of each figure of a page, by its title."""
    figures = {}
    for text in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL):
        root = ET.fromstring(text)
        assert root[0].text not in figures
        marks = {path.get("id"): path.get("d").split() for path in root.iter("path") if path.get("id")}
        figures[root[0].text] = [Axes(group, marks) for group in root.find("g") if group.find(".//use") is not None]
    return figures


class Axes:
    """One pair of axes (or a legend, which has no scale)."""

    def __init__(self, group, marks):
        self.group = group
        self.ticks = marks
        self.x, self.y = self._scale(0), self._scale(1)
        self.texts = [element.text for element in group.iter("text") if element.text]

    def _scale(self, side):
        """Return a function position -> value, logarithmic if ticks are powers of ten; None without two labels."""
        ticks = []
        for tick in self.group.iter("g"):
            mark = tick.find("g/g/use")
            text = tick.find("g/text")
            if mark is None or text is None or text.text is None:
                continue
            is_x = self.ticks[mark.get("href")[1:]][4] == "0"  # M 0 0 L 0 3.5: downwards
            label = text.text.replace("−", "-").replace(",", "").replace("%", "")
            if is_x == (side == 0) and re.fullmatch(NUMBER, label):
                ticks.append((float(mark.get("xy"[side])), float(label)))
        if len(ticks) < 2:
            return None
        places, values = np.array(sorted(ticks)).T
        powers = (values > 0).all() and np.allclose(np.abs(np.diff(np.log10(values))), 1)
        heights = np.log10(values) if powers else values
        fit = np.polyfit(places, heights, 1)
        assert np.allclose(np.polyval(fit, places), heights, atol=2e-3 * np.ptp(heights))
        return (lambda place: 10 ** np.polyval(fit, place)) if powers else (lambda place: np.polyval(fit, place))

    def points(self, path, like=None):
        """Return the points of a path on the scale of the axes: (points, 2)."""
        x = self.x or like.x
        places = np.array(re.findall(rf"[ML] ({NUMBER}) ({NUMBER})", path.get("d")), float)
        y = self.y or (lambda place: place)  # names, not numbers
        return np.stack([x(places[:, 0]), y(places[:, 1])], axis=1)

    def lines(self, colour, like=None):
        """Return the lines of a colour, without legend and axes."""
        return [self.points(path, like) for path in self.group.iter("path")
                if f"stroke: {colour}" in (path.get("style") or "") and path.get("clip-path")]  # fmt: skip

    def boxes(self, colour, like=None):
        """Return left, right, bottom, top of each filled box of a colour: (boxes, 4)."""
        boxes = []
        for path in self.group.iter("path"):
            if f"fill: {colour}" in (path.get("style") or "") and path.get("clip-path"):
                x, y = self.points(path, like).T
                boxes.append((x.min(), x.max(), y.min(), y.max()))
        return np.array(boxes)

    def marks(self, colour, like=None, hollow=False):
        """Return the points marked with a dot of a colour: (points, 2)."""
        x, style = self.x or like.x, f"fill: #ffffff; stroke: {colour}" if hollow else f"fill: {colour}"
        places = [(float(use.get("x")), float(use.get("y"))) for use in self.group.iter("use")
                  if style in (use.get("style") or "")]  # fmt: skip
        return np.array([(x(a), self.y(b)) for a, b in places])
