"""Compare training speed with the input pipeline to training on one cached batch.

    python benchmarks/pipeline.py configs/bijie_edge.yaml --data BIJIE --encoder-weights none

Both take turns in one process, so that a slow machine slows both. The ratio should be at least 0.95. Without --data
the tiles of `LIM_KERAS_DATA`/bijie are used, or those of a synthetic world.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

import lim_keras as lk
from lim_keras.config import RunConfig
from lim_keras.config_file import load_config
from lim_keras.data.layouts import read_tiles
from lim_keras.data.pipeline import training_batches
from lim_keras.data.tile_statistics import TileStatistics
from lim_keras.data.tiles import TileSet, TileStore
from lim_keras.demo.world import make_world, write_world
from lim_keras.models import build_model
from lim_keras.training.fit import build_loss, build_optimizer, build_sampler

_UNTIMED, _TIMED = 10, 25  # steps of a turn; more untimed ones than the pipeline prefetches
_EPOCHS = 10_000


def main() -> None:
    """Measure, print JSON, and write it to the file of --json."""
    options = _options()
    config = load_config(options.config, options.set)
    with tempfile.TemporaryDirectory() as scratch:
        figures = measure(config, _tiles(options.data, Path(scratch)), options.encoder_weights, options.seconds)
    text = json.dumps(figures, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n", encoding="utf-8")


def measure(config: RunConfig, tiles: TileSet, weights: str, seconds: float) -> dict[str, Any]:
    """Measure images per second of both feeds; all tiles are decoded before."""
    store = TileStore(tiles, config.sampling.gsd_m, config.gsd_m, "memory")
    for position in range(len(store)):
        store.get(position)
    sampler, steps = build_sampler(config, store, TileStatistics.measure(tiles))
    section = config.model
    model = build_model(
        section.name,
        section.encoder,
        tiles.bands,
        encoder_weights=weights,
        decoder_channels=section.decoder_channels,
        input_reduction=section.input_reduction,
    )
    model.compile(optimizer=build_optimizer(config.training, model, steps), loss=build_loss(config.loss))
    batches = iter(training_batches(sampler, config.training.batch_size, steps, _EPOCHS))
    cached = next(batches)
    feeds: dict[str, Callable[[], Any]] = {"pipeline": lambda: next(batches), "cached": lambda: cached}
    spent, images = _in_turns(model, feeds, config.training.batch_size, seconds)
    rates = {name: images[name] / spent[name] for name in feeds}
    started = time.perf_counter()
    examples = [sampler.example(0, position) for position in range(50)]
    return {
        "config": config.name,
        "images_per_second": rates,
        "ratio": rates["pipeline"] / rates["cached"],
        "milliseconds_per_example": 1000 * (time.perf_counter() - started) / len(examples),
        "cores": os.cpu_count(),
    }


def _in_turns(
    model: keras.Model, feeds: dict[str, Callable[[], Any]], batch_size: int, seconds: float
) -> tuple[dict[str, float], dict[str, int]]:
    spent, images = dict.fromkeys(feeds, 0.0), dict.fromkeys(feeds, 0)
    while min(spent.values()) < seconds:
        for name, feed in feeds.items():
            # Use up the batches that were prefetched during the other turn.
            for _ in range(_UNTIMED):
                model.train_on_batch(*feed())
            started = time.perf_counter()
            for _ in range(_TIMED):
                model.train_on_batch(*feed())
            spent[name] += time.perf_counter() - started
            images[name] += _TIMED * batch_size
    return spent, images


def _tiles(data: Path | None, scratch: Path) -> TileSet:
    folder = os.environ.get("LIM_KERAS_DATA")
    if data is None and folder is None:
        world = write_world(make_world(seed=1), scratch / "world")
        lk.tile_scenes(world.scene, world.landslides, scratch / "tiles", size=128)
        scratch /= "tiles"
    return read_tiles(data or (Path(folder) / "bijie" if folder else scratch))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--encoder-weights", default="none")
    parser.add_argument("--seconds", type=float, default=30.0, help="measured time of each feed")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
