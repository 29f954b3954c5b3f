"""Write results of later steps (shards, runs, predictions) into the dataset, so that SQL reaches them."""

import duckdb
import pyarrow as pa

from pipeline.dataset.database import explain, writing
from pipeline.errors import UserError


def replace_rows(dataset: str, column: str, value: int | str, tables: dict[str, pa.Table]) -> None:
    """Replace the rows of relations where `column` has `value`, in one transaction. tables: new rows by relation.

    Raises UserError where the dataset was built by another version.
    """
    with writing(dataset) as connection:
        try:
            connection.execute("begin")
            for table, rows in tables.items():
                connection.execute(f"delete from {table} where {column} = ?", [value])
                connection.register("new_rows", rows)
                connection.execute(f"insert into {table} by name select * from new_rows")
                connection.unregister("new_rows")
            connection.execute("commit")
        except (duckdb.BinderException, duckdb.CatalogException):
            raise UserError(f"{dataset} was built by another version of promoter-bert; build it again") from None
        except duckdb.Error as error:
            raise explain(error) from None
