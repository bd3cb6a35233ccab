"""Draw docs/images/photometric.jpg: each photometric change, at its strengths 1 and 2, on the synthetic world.

python docs/scripts/draw_photometric.py
"""

from pathlib import Path

import cv2
import numpy as np

from lim_keras.data.photometric import CHANGES, Photometric
from lim_keras.demo.world import make_world

IMAGE = Path(__file__).parents[1] / "images" / "photometric.jpg"
SIDE, GAP, CAPTION = 240, 6, 24  # pixels
SEEDS = 40  # draws, of which one is shown that changes the tile more than nine tenths of them


def main() -> None:
    """Draw one row for each strength."""
    world = make_world(512, 3, landslides=6)
    rows, columns = np.nonzero(world.instances == 1)
    top, left = (int(np.clip(np.median(place) - SIDE // 2, 0, 512 - SIDE)) for place in (rows, columns))
    tile = np.ascontiguousarray(world.scene[top : top + SIDE, left : left + SIDE])
    names = [*CHANGES, "all"]
    pages = [
        [labelled(tile, "as it is"), *(labelled(drawn(tile, name, level), f"{name} {level}") for name in names)]
        for level in (1, 2)
    ]
    lines = [
        np.hstack([np.pad(cell, ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for cell in page[half]])
        for half in (slice(0, 5), slice(5, 9))
        for page in pages
    ]
    widest = max(line.shape[1] for line in lines)
    sheet = np.vstack(
        [np.pad(line, ((0, 0), (0, widest - line.shape[1]), (0, 0)), constant_values=255) for line in lines]
    )
    cv2.imwrite(str(IMAGE), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])


def drawn(tile: np.ndarray, name: str, level: float) -> np.ndarray:
    """Return the tile after a change that is stronger than nine of ten draws."""
    strengths = dict.fromkeys(CHANGES if name == "all" else (name,), float(level))
    change = Photometric(np.zeros(3), np.full(3, 255.0), strengths)
    mask = np.zeros(tile.shape[:2], np.uint8)
    shown = [change(tile, mask, np.random.default_rng(seed))[0] for seed in range(SEEDS)]
    order = np.argsort([np.abs(one.astype(int) - tile).mean() for one in shown])
    return shown[order[int(0.9 * SEEDS)]]


def labelled(tile: np.ndarray, text: str) -> np.ndarray:
    """Add a caption above a tile."""
    head = np.full((CAPTION, tile.shape[1], 3), 255, np.uint8)
    cv2.putText(head, text.replace("_", " "), (2, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([head, tile])


if __name__ == "__main__":
    main()
