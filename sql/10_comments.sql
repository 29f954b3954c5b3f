-- What each relation and column holds, for `describe` and `select * from duckdb_tables()`.
comment on table promoters is 'one row a usable input row, in the random order of the build';
comment on column promoters.id is 'row number in that order, from 0; the splits are ranges of it';
comment on column promoters.sequence is 'left adapter, insert, right adapter; letters ACGTN';
comment on column promoters.expression is 'measured expression: sorting-bin average, 0 to 17';
comment on table rejects is 'one row an input row that could not be used';
comment on column rejects.line is 'line of the file (row of a Parquet file), from 1';
comment on column rejects.text is 'the row as it came';
comment on table dataset is 'one row: sizes, cut, seed and key of this dataset';
comment on column dataset.key is 'sha256 of the content and the splits; shards and runs are bound to it';
comment on column dataset.cut is 'promoters at or above this expression are pretrained on';
comment on view finetune is 'one row a promoter: split (train, valid, test) and position within it, from 0';
comment on view pretrain is 'one row a promoter at or above the cut: split (train, valid) and position, from 0';
comment on table shards is 'one row a shard file, filled by promoter-bert shards';
comment on table records is 'one row a record of a shard; join on stage, split and position';
comment on table runs is 'one row a finished training run';
comment on table metrics is 'one row a logged number of a run';
comment on table predictions is 'one row a held-out promoter and run: predicted expression';
