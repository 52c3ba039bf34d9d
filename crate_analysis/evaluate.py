"""Measure a model on a data set, by one process or by those that torchrun starts.

`python -m crate_analysis.evaluate layers crate-creatures creatures results` writes a CSV table and
prints its name, which holds a digest of all that was asked for: the same request again is answered
from the file, another goes to another file, and one that was killed goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import torch

from crate_analysis.datasets import SampleDataset, load_dataset
from crate_analysis.distributed import joined, rank
from crate_analysis.fingerprints import describe, of_code
from crate_analysis.measures import measure_layers
from crate_analysis.models import UnrolledModel, load_model
from crate_analysis.names import digest, slug
from crate_analysis.segmentation import Scoring, attention_iou, head_scores
from crate_analysis.segmentation.detection import find_objects
from crate_analysis.segmentation.masks import Rule
from crate_analysis.segmentation.truth import Region
from crate_analysis.shards import Measurement, check_table, measure_in_shards
from crate_analysis.walk import Reading


def evaluate(
    measurement: Measurement,
    request: Mapping[str, Any],
    model: UnrolledModel,
    dataset: SampleDataset,
    folder: Path,
    shard_size: int,
) -> Path:
    """The table of a measurement, in `folder` and named by the model, the images and the request.

    `request` is all of what settles the numbers beside model, images and code, JSON-ready, with
    the measurement's name as `measure`. Beside the table a `.json` file says what it is of, and
    which images could not be read.
    """
    record = {
        **request,
        **describe(model, dataset),
        "code": of_code(Path(__file__).parent),
    }
    stem = f"{request['measure']}-{slug(model.name)}"
    table = folder / f"{stem}-{digest([json.dumps(record).encode()])}.csv"
    measure_in_shards(measurement, dataset, table, shard_size, record)
    return table


def read_objects(table: str | Path) -> pd.DataFrame:
    """The frame of `detect_objects` from a table that this module wrote.

    Raises DamagedFileError for a table that is not as it was written.
    """
    check_table(Path(table))
    parse = {"bbox": json.loads, "segmentation": json.loads}
    return pd.read_csv(table, converters=parse)


def _objects(
    model: UnrolledModel, part: SampleDataset, options: Mapping[str, Any], reading: Reading
) -> pd.DataFrame:
    found = find_objects(model, part, **options, reading=reading)
    columns = {name: found[name].map(json.dumps) for name in ("bbox", "segmentation")}
    return found.assign(**columns)


def main(arguments: list[str] | None = None) -> None:
    """Run one subcommand; an error in what was asked for is one line and exit status 1."""
    options = vars(_parser().parse_args(arguments))
    try:
        _run(**options)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: error: {error}")


def _run(
    measure: str,
    model: str,
    dataset: str,
    folder: Path,
    split: str,
    image_size: int | None,
    limit: int | None,
    seed: int,
    batch_size: int,
    shard_size: int,
    workers: int,
    device: str,
    threads: int,
    **options: Any,
) -> None:
    torch.set_num_threads(threads)
    with joined(device) as own:
        network = load_model(model).to(own)
        size = image_size or network.config.image_size
        images = load_dataset(dataset, split, size, limit, seed)
        how = Reading(batch_size, workers=workers)
        measurements: dict[str, Measurement] = {
            "layers": lambda part: measure_layers(network, part, reading=how),
            "attention": lambda part: attention_iou(network, part, **options, reading=how),
            "heads": lambda part: head_scores(network, part, Scoring(**options), reading=how),
            "objects": lambda part: _objects(network, part, options, how),
        }
        request = {"measure": measure, "batch_size": batch_size, **options}
        table = evaluate(measurements[measure], request, network, images, folder, shard_size)
        if rank() == 0:
            print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m crate_analysis.evaluate", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, dest="measure")
    helps = {
        "layers": "coding rates and sparsity of each layer (Figs. 5 and 6)",
        "attention": "IoU of each head's attention with each true mask (Sec. 3.1)",
        "heads": "IoU and average precision of each head for each part (Fig. 7)",
        "objects": "what MaskCut finds (Sec. 3.2, Table 1)",
    }
    parsers = {}
    for name, text in helps.items():
        parsers[name] = one = commands.add_parser(
            name,
            help=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
            allow_abbrev=False,
        )
        one.add_argument("model", help="[LABEL=]WHAT[@ARCH][@field=value,...]")
        one.add_argument("dataset", help="creatures, voc:ROOT, coco:ROOT, folder:ROOT, ...")
        one.add_argument("folder", type=Path, help="where tables are kept")
        one.add_argument("--split", default="val", help="of the data set")
        one.add_argument("--image-size", type=int, help="pixels; the model's own when left out")
        one.add_argument("--limit", type=int, help="images; all when left out")
        one.add_argument("--seed", type=int, default=0, help="of generated or chosen images")
        one.add_argument("--batch-size", type=int, default=32, help="images at a time")
        one.add_argument("--shard-size", type=int, default=128, help="images kept at a time")
        one.add_argument("--workers", type=int, default=0, help="processes that read images")
        one.add_argument("--device", default="cpu", help="such as cuda")
        one.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    for name in ("attention", "heads"):
        parsers[name].add_argument("--keep", type=float, default=0.6, help="share that masks keep")
    rules = get_args(Rule)
    for name, default in (("attention", list(rules)), ("heads", ["mass"])):
        parsers[name].add_argument("--rules", nargs="+", choices=rules, default=default)
    parsers["heads"].add_argument(
        "--within",
        nargs="+",
        choices=get_args(Region),
        default=["image"],
        help="which pixels count: all, or for parts those of their object",
    )
    parsers["objects"].add_argument("--layers", nargs="+", type=int, default=[-1], help="to read")
    parsers["objects"].add_argument("--n-masks", type=int, default=3, help="objects an image")
    parsers["objects"].add_argument("--tau", type=float, default=0.15, help="of the affinity")
    return parser


if __name__ == "__main__":
    main()
