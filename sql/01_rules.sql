-- Temporary macros of the build and of predictions: repairs, reasons of rejects, the random order, sizes.

-- The repairs, in this order. Each leaves a sequence unchanged unless a setting of the assay requests it.
-- 01_optional_repairs.sql replaces without_white_space and with_exact_adapters, if one of them is requested: a macro copies
-- its argument to each place that uses it, and planning these nested repairs takes long.
create or replace temp macro without_white_space(sequence) as case
    when getvariable('white_space') = 'strip' then regexp_replace(sequence, '\s', '', 'g')
    else sequence
end;
create or replace temp macro in_upper_case(sequence) as case
    when getvariable('lower_case') = 'upper' then upper(sequence)
    else sequence
end;
create or replace temp macro without_uracil(sequence) as case
    when getvariable('uracil') = 'thymine' then translate(sequence, 'Uu', 'Tt')
    else sequence
end;
create or replace temp macro without_iupac(sequence) as case
    when getvariable('iupac') = 'n' then regexp_replace(sequence, '[RYSWKMBDHV]', 'N', 'g')
    else sequence
end;
create or replace temp macro with_exact_adapters(sequence) as sequence;
-- A sequence with neither adapter is treated as a bare insert.
create or replace temp macro with_adapters(sequence) as case
    when getvariable('missing_adapters') = 'add'
        and sequence <> ''
        and not starts_with(sequence, getvariable('left_adapter'))
        and not ends_with(sequence, getvariable('right_adapter'))
        then getvariable('left_adapter') || sequence || getvariable('right_adapter')
    else sequence
end;
create or replace temp macro repaired(sequence) as
    with_adapters(with_exact_adapters(without_iupac(without_uracil(in_upper_case(without_white_space(sequence))))));

-- Reasons of rejects: codes for programs, texts for people. The texts are defined only here.
create or replace temp macro reason_texts() as map {
    'no_sequence': 'no sequence',
    'white_space': 'white space in the sequence',
    'lower_case': 'lower-case bases',
    'uracil': 'U in the sequence',
    'iupac': 'IUPAC codes other than ACGTN',
    'letters': 'letters other than ACGTN',
    'left_adapter': 'left adapter missing',
    'right_adapter': 'right adapter missing',
    'short_insert': 'insert too short',
    'long_insert': 'insert too long',
    'quotes': 'quotes inside a field',
    'columns': '{} column{}, expected {}',
    'no_number': 'expression is not a number',
    'nan': 'expression is NaN',
    'label_range': 'expression out of the assay''s range',
    'no_design': 'no sequence has the name of the row',
    'no_label': 'no label',
    'filtered': 'filtered out by dataset.where',
    'no_split': 'no value in the column of splits',
    'averaged': 'averaged with an equal sequence',
    'duplicate': 'equal to an earlier sequence'
};
create or replace temp macro reason_text(code) as reason_texts()[code];

-- The code of the first rule that a (repaired) sequence breaks; null for a valid one.
create or replace temp macro sequence_code(sequence) as case
    when sequence is null or sequence = '' then 'no_sequence'
    -- Other letters than ACGTN: the share of letters in common is 1 without them. A regular expression takes four times
    -- as long.
    when jaccard(sequence || 'ACGTN', 'ACGTN') < 1 then
        case
            when regexp_matches(sequence, '\s') then 'white_space'
            when not regexp_matches(upper(sequence), '[^ACGTN]') then 'lower_case'
            when not regexp_matches(upper(sequence), '[^ACGTUN]') then 'uracil'
            when not regexp_matches(upper(sequence), '[^ACGTUNRYSWKMBDHV]') then 'iupac'
            else 'letters'
        end
    when not starts_with(sequence, getvariable('left_adapter')) then 'left_adapter'
    when not ends_with(sequence, getvariable('right_adapter')) then 'right_adapter'
    when strlen(sequence) - strlen(getvariable('left_adapter')) - strlen(getvariable('right_adapter'))
        < getvariable('min_insert') then 'short_insert'
    when strlen(sequence) - strlen(getvariable('left_adapter')) - strlen(getvariable('right_adapter'))
        > getvariable('max_insert') then 'long_insert'
end;
create or replace temp macro sequence_problem(sequence) as reason_text(sequence_code(sequence));

-- The code of the rule that a label breaks; expression is text.
create or replace temp macro label_code(expression) as case
    -- DuckDB reads 1_0 as ten.
    when expression is null or try_cast(expression as double) is null or contains(expression, '_') then 'no_number'
    when isnan(try_cast(expression as double)) then 'nan'
    when try_cast(expression as double)
        not between getvariable('min_expression') and getvariable('max_expression')
        then 'label_range'
end;

-- The code of the first rule that a row of the input breaks. copy: 2 or more for a duplicate; rule: the code of a rule
-- for several labels, dataset.where or a given split (inputs/cells.sql).
create or replace temp macro reject_code(fields, sequence, expression, copy, rule := null) as case
    when sequence is null or sequence = ''
        then if(coalesce(getvariable('with_design'), false), 'no_design', 'no_sequence')
    when fields < 0 then 'quotes'
    when fields <> getvariable('columns') then 'columns'
    else coalesce(
        rule,
        sequence_code(repaired(sequence)),
        if(getvariable('labelled') and not coalesce(getvariable('several_labels'), false), label_code(expression), null),
        if(copy > 1, if(getvariable('duplicates') = 'average', 'averaged', 'duplicate'), null)
    )
end;
-- The text of a code. fields: the number of columns of the row.
create or replace temp macro reject_reason(code, fields) as case
    when code = 'columns'
        then format(reason_text(code), fields, if(fields = 1, '', 's'), getvariable('columns'))
    else reason_text(code)
end;

-- The fields of a line in which quoted fields may hold delimiters.
create or replace temp macro quoted_fields(text, delimiter) as
    regexp_extract_all(delimiter || text, delimiter || '("(?:[^"]|"")*"|[^' || delimiter || ']*)', 1);
-- A field without white space around it and without its quotes.
create or replace temp macro unquoted(field) as
    replace(regexp_replace(trim(coalesce(field, '')), '^"(.*)"$', '\1'), '""', '"');
-- The number of fields of a line; -1 if a quoted field continues after its quotes.
create or replace temp macro field_count(text, fields, delimiter) as
    if(strlen(array_to_string(fields, delimiter)) = strlen(text), len(fields), -1);

-- The random order of a build: a hash of sequence and seed, independent of the order of the rows.
create or replace temp macro shuffle_hash(sequence, seed) as hash(hash(sequence, seed::ubigint));

-- The number of rows of a size: a fraction of n (below 1), or a count.
create or replace temp macro rows_of(size, n) as case
    when size < 1 then floor(size::double * n)::bigint
    else size::bigint
end;
-- The number of training rows of finetune: all promoters that are not held out, or finetune_train.
create or replace temp macro training_rows(promoters, held_out) as case
    when getvariable('finetune_train')::varchar = 'all' then promoters - held_out
    else rows_of(try_cast(getvariable('finetune_train') as double), promoters)
end;
