-- Functions of the build alone; they are gone with the session.

-- Why a sequence cannot be used; null for a good one.
create or replace temp macro sequence_problem(sequence) as case
    when sequence is null or sequence = '' then 'no sequence'
    when regexp_matches(sequence, '[^ACGTN]') then
        case
            when not regexp_matches(upper(sequence), '[^ACGTN]') then 'lower-case bases'
            else 'letters other than ACGTN'
        end
    when not starts_with(sequence, getvariable('left_adapter')) then 'left adapter missing'
    when not ends_with(sequence, getvariable('right_adapter')) then 'right adapter missing'
    when length(sequence) - length(getvariable('left_adapter')) - length(getvariable('right_adapter'))
        < getvariable('min_insert') then 'insert too short'
    when length(sequence) - length(getvariable('left_adapter')) - length(getvariable('right_adapter'))
        > getvariable('max_insert') then 'insert too long'
end;

-- Why a label cannot be used; null for a good one. expression comes as text.
create or replace temp macro label_problem(expression) as case
    when expression is null or try_cast(expression as double) is null then 'expression is not a number'
    when isnan(try_cast(expression as double)) then 'expression is NaN'
    when try_cast(expression as double)
        not between getvariable('min_expression') and getvariable('max_expression')
        then 'expression out of the assay''s range'
end;

-- Why a row of the input cannot be used; null for a good one.
create or replace temp macro reject_reason(fields, sequence, expression) as case
    when sequence is null or sequence = '' then 'no sequence'
    when fields < 2 then 'one column: expected sequence<TAB>expression'
    when fields > 2 then 'more than two columns: expected sequence<TAB>expression'
    else coalesce(sequence_problem(sequence), label_problem(expression))
end;

-- The random order of a build: mixes a sequence with the seed; equal for equal sequences, whatever the row order.
create or replace temp macro shuffle_hash(sequence, seed) as hash(hash(sequence, seed::ubigint));

-- A size given as a fraction of n (below 1) or as a count.
create or replace temp macro rows_of(size, n) as case
    when size < 1 then floor(size::double * n)::bigint
    else size::bigint
end;
