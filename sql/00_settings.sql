-- The settings of a build, as variables. A variable that is not set gets the value of the yeast assay. Set at least:
--   set variable input_files = ['train_sequences.txt'];

-- The layout of the input: fields are counted from 1; skip_lines is the number of header lines of each file.
set variable delimiter = coalesce(getvariable('delimiter'), chr(9));
set variable quoted = coalesce(getvariable('quoted'), false);
set variable skip_lines = coalesce(getvariable('skip_lines'), 0);
set variable columns = coalesce(getvariable('columns'), 2);
set variable sequence_field = coalesce(getvariable('sequence_field'), 1);
set variable expression_field = coalesce(getvariable('expression_field'), 2);
set variable labelled = coalesce(getvariable('labelled'), true);

-- The assay: rules for valid promoters, and repairs of sequences that break a rule.
set variable left_adapter = coalesce(getvariable('left_adapter'), 'TGCATTTTTTTCACATC');
set variable right_adapter = coalesce(getvariable('right_adapter'), 'GGTTACGGCTGTT');
set variable upstream = coalesce(getvariable('upstream'), 'AGTCCACTATTAAAGAACGTGGACTCCAACGTCAAAGGGCGAAAAACCGTCTATCAGGGCGATGGCCCACTACGTGAACCATCACCCTAATCAAGTGCTAGCAGGAATGATGCAAAAGGTTCCCGATTCGAACTGCATTTTTTTCACATC');
set variable downstream = coalesce(getvariable('downstream'), 'GGTTACGGCTGTTTCTTAATTAAAAAAAGATAGAAAACATTAGGAGTGTAACACAAGACTTTCGGATCCTGAGCAGGCAAGATAAACGAAGGCAAAGATGTCTAAAGGTGAAGAATTATTCACTGGTGTTGTCCCAATTTTGGTTGAATT');
set variable min_insert = coalesce(getvariable('min_insert'), 1);
set variable max_insert = coalesce(getvariable('max_insert'), 500);
set variable min_expression = coalesce(getvariable('min_expression'), 0.0);
set variable max_expression = coalesce(getvariable('max_expression'), 17.0);
set variable white_space = coalesce(getvariable('white_space'), 'reject');
set variable lower_case = coalesce(getvariable('lower_case'), 'reject');
set variable uracil = coalesce(getvariable('uracil'), 'reject');
set variable iupac = coalesce(getvariable('iupac'), 'reject');
set variable missing_adapters = coalesce(getvariable('missing_adapters'), 'reject');
set variable adapter_mismatches = coalesce(getvariable('adapter_mismatches'), 0);

-- The splits. Sizes below 1 are fractions of the rows; sizes of 1 or more are numbers of rows.
set variable seed = coalesce(getvariable('seed'), 0);
set variable duplicates = coalesce(getvariable('duplicates'), 'keep');
set variable split = coalesce(getvariable('split'), 'random');
set variable max_mismatches = coalesce(getvariable('max_mismatches'), 2);
set variable top_fraction = coalesce(getvariable('top_fraction'), 0.2);
set variable pretrain_valid = coalesce(getvariable('pretrain_valid'), 0.05);
set variable pretrain_valid_at_most = coalesce(getvariable('pretrain_valid_at_most'), 100000);
set variable finetune_valid = coalesce(getvariable('finetune_valid'), 0.05);
set variable finetune_test = coalesce(getvariable('finetune_test'), 0.05);
set variable valid_from_train = coalesce(getvariable('valid_from_train'), 0);
-- Training rows of finetune: all that are not held out, or fewer. A fraction refers to all promoters.
set variable finetune_train = coalesce(getvariable('finetune_train'), 'all');
