-- With split = grouped, one split of finetune holds equal inserts, the inserts of a cluster, and the rows of one value of
-- dataset.group_column. A hash stands for insert and value: millions of texts would exceed the memory.
select hash(coalesce(leader, insert_of(sequence))) as cluster, min(finetune.split) as one, max(finetune.split) as other
from finetune
left join near_duplicates on near_duplicates."insert" = insert_of(sequence)
where (select split from dataset) = 'grouped'
group by 1
having one <> other
union all
select hash(value), min(split) as one, max(split) as other
from (
    select coalesce(null/* group_name */) as value, finetune.split
    from finetune
    join promoters using (id)
)
where value is not null and (select split from dataset) = 'grouped'
group by 1
having one <> other;
