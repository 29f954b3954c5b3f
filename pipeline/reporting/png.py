"""Draw figures as PNG files, on white."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from pipeline.reporting.svg import STYLE, WIDTH, Draw

DOTS_PER_INCH = 200


def draw_pixels(draw: Draw, height: float, width: float = WIDTH) -> npt.NDArray[np.uint8]:
    """Draw a figure of `height` times `width` inches: uint8 (rows, columns, 4), in the style of render_svg."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained", facecolor="white")
        canvas = FigureCanvasAgg(figure)
        draw(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        return np.array(canvas.buffer_rgba(), np.uint8)  # type: ignore[no-untyped-call]


def write_png(file: Path, images: Sequence[npt.NDArray[np.uint8]]) -> None:
    """Write images of equal width below each other, as one PNG file with its resolution."""
    imsave(file, np.concatenate(images), format="png", dpi=DOTS_PER_INCH)
