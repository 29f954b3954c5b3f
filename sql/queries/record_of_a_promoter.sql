-- The shard and the record that hold the first ten promoters of the fine-tuning test split.
select f.id, f.sequence, r.k, r.shard, r.record, f.position - r.first_position as row_in_record
from finetune f
join records r
    on r.stage = 'finetune' and r.split = f.split
    and f.position >= r.first_position and f.position < r.first_position + r.rows
where f.split = 'test' and f.position < 10
order by r.k, f.position;
