-- Relations that later commands fill: shards, and runs with their metrics and predictions.
create table if not exists shards (
    k integer, stage varchar, split varchar, shard integer, file varchar, records integer, first_position bigint,
    rows bigint, bytes bigint, sha256 varchar
);
create table if not exists records (
    k integer, stage varchar, split varchar, shard integer, record integer, first_position bigint, rows bigint,
    "offset" bigint, bytes bigint, crc32 bigint
);
create table if not exists runs (
    run varchar, finished timestamp, dataset_key varchar, shard_key varchar, test_pearson double,
    test_spearman double, config json
);
create table if not exists metrics (
    run varchar, stage varchar, step bigint, epoch double, metric varchar, value double
);
create table if not exists predictions (
    run varchar, id bigint, split varchar, prediction double, label varchar
);

-- What held-out rows have in common with training rows. A build fills it before; by hand, nothing is examined.
create table if not exists split_leaks as
select
    (finetune_test_rows + finetune_valid_rows)::bigint as held_out,
    null::bigint as near_duplicates,
    null::bigint as reverse_complements,
    null::bigint as shared_runs
from dataset;
