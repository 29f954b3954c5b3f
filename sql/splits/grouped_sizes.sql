-- The numbers of test and validation rows, those that were requested (test_size, valid_size), and the training rows.
select
    coalesce(sum(rows) filter (split = 'test'), 0)::bigint as test,
    coalesce(sum(rows) filter (split = 'valid'), 0)::bigint as valid,
    rows_of(getvariable('finetune_test'), sum(rows)::bigint) as test_size,
    rows_of(getvariable('finetune_valid'), sum(rows)::bigint) as valid_size,
    training_rows(sum(rows)::bigint, test_size + valid_size) as train
from clusters;
