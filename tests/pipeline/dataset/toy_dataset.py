"""Twelve rows worked out by hand, their configuration, and a reader of the dataset."""

from pipeline.dataset.database import open_dataset
from tests.conftest import small_config

L, R = "TGCATTTTTTTCACATC", "GGTTACGGCTGTT"

# Twelve rows, worked out by hand. Descending: 9 9 8 7 7 7 5 4 3 2 1 0; index int(0.4 * 12) = 4 holds a 7, so the cut
# is 7 and its three ties are in: six rows.
TOY = [("A" * n, e) for n, e in zip(range(3, 15), (7, 0, 9, 1, 7, 2, 8, 3, 7, 4, 9, 5), strict=True)]

OUTPUTS = {"dataset.duckdb", "dataset.parquet", "dataset.rejects.parquet"}


def line(insert, expression):
    return f"{L}{insert}{R}\t{expression}\n"


GOOD = "".join(line(*row) for row in TOY)
BARE = "".join(f"{L}{insert}{R}\n" for insert, _ in TOY)


def toy_config(folder, *overrides):
    sizes = [
        "dataset.top_fraction=0.4",
        "dataset.pretrain_valid=0.5",
        "dataset.finetune_valid=3",
        "dataset.finetune_test=2",
    ]
    return small_config(folder, *sizes, *overrides)


def write(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


class Rows:
    """Rows of a relation. Equal to other rows if the columns that both have are equal."""

    def __init__(self, names, rows):
        self.names, self.rows = names, rows

    def __len__(self):
        return len(self.rows)

    def __eq__(self, other):
        shared = [name for name in self.names if name in other.names]
        return self.select(shared) == other.select(shared)

    def select(self, names):
        places = [self.names.index(name) for name in names]
        return [tuple(row[place] for place in places) for row in self.rows]


def everything(path):
    """Read all contents of a dataset, except the places of its rejects and what files it came from.

    Files may differ in further columns: relation promoters compares those that both have.
    """
    with open_dataset(path) as connection:
        relations = ("finetune", "pretrain")
        results = {name: connection.execute(f"from {name} order by all").fetchall() for name in relations}
        promoters = connection.sql("from promoters order by all")
        results["promoters"] = Rows(promoters.columns, promoters.fetchall())
        # All of the one row but what files it came from.
        results["dataset"] = connection.execute("select * exclude (source, files, labels) from dataset").fetchall()
        results["rejects"] = connection.execute("select reason, text from rejects order by all").fetchall()
    return results


PARQUET_ROWS = """
select promoters.*, finetune.split, finetune.position, pretrain.split, pretrain.position
from promoters left join finetune using (id) left join pretrain using (id) order by id
"""
