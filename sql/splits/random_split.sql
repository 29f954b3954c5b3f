-- The rows in the order of a random split: rows of test and validation, then training.
select row
from inserts
order by shuffle_hash(sequence, getvariable('seed'));
