-- The numbers of rows, of requested test and validation rows, and of training rows.
select
    count(*) as rows,
    rows_of(getvariable('finetune_test'), rows)::bigint as test,
    rows_of(getvariable('finetune_valid'), rows)::bigint as valid,
    training_rows(rows, test + valid)::bigint as train
from numbered_rows;
