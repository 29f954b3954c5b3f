-- Two repairs that cost time, to run after 01_rules.sql: k-mers with white space between them, inexact adapters.

-- Words of one length, each of which begins one base after the one before: the overlapping k-mers of a sequence.
create or replace temp macro are_overlapping(words) as
    len(words) >= 3 and strlen(words[1]) between 2 and 8
    and len(list_filter(
        words[2:],
        lambda word, place: strlen(word) <> strlen(words[1]) or left(word, -1) <> substring(words[place], 2)
    )) = 0;
create or replace temp macro without_white_space(sequence) as case
    when getvariable('white_space') = 'strip'
        then list_transform([sequence], lambda text: case
            when are_overlapping(regexp_extract_all(text, '\S+'))
                then regexp_extract(text, '\S+')
                    || array_to_string(
                        list_transform(regexp_extract_all(text, '\S+')[2:], lambda word: right(word, 1)), ''
                    )
            else regexp_replace(text, '\s', '', 'g')
        end)[1]
    else sequence
end;

-- Adapters at both ends with at most adapter_mismatches substitutions each are replaced by the exact ones.
create or replace temp macro mismatches_of(bases, adapter) as if(adapter = '', 0, hamming(bases, adapter));
create or replace temp macro insert_within(text) as substring(
    text,
    strlen(getvariable('left_adapter')) + 1,
    strlen(text) - strlen(getvariable('left_adapter')) - strlen(getvariable('right_adapter'))
);
create or replace temp macro with_exact_adapters(sequence) as list_transform([sequence], lambda text: case
    -- hamming needs texts of one length, in bytes.
    when getvariable('adapter_mismatches') = 0
        or not regexp_full_match(text, '[ACGTN]*')
        or strlen(text) < strlen(getvariable('left_adapter')) + strlen(getvariable('right_adapter'))
        then text
    when mismatches_of(left(text, strlen(getvariable('left_adapter'))), getvariable('left_adapter'))
        <= getvariable('adapter_mismatches')
        and mismatches_of(right(text, strlen(getvariable('right_adapter'))), getvariable('right_adapter'))
        <= getvariable('adapter_mismatches')
        then getvariable('left_adapter') || insert_within(text) || getvariable('right_adapter')
    else text
end)[1];
