-- Test and validation rows as the groups came out, and as they were asked for; and the training rows.
select
    coalesce(sum(rows) filter (split = 'test'), 0)::bigint as test,
    coalesce(sum(rows) filter (split = 'valid'), 0)::bigint as valid,
    rows_of(getvariable('finetune_test'), sum(rows)::bigint) as test_asked,
    rows_of(getvariable('finetune_valid'), sum(rows)::bigint) as valid_asked,
    training_rows(sum(rows)::bigint, test_asked + valid_asked) as train
from groups;
