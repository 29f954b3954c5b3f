-- With split = grouped, equal inserts and the inserts of a cluster are in one split of finetune. A hash stands for the
-- insert: millions of texts would exceed the memory.
select hash(coalesce(leader, insert_of(sequence))) as cluster, min(finetune.split) as one, max(finetune.split) as other
from finetune
left join near_duplicates on near_duplicates."insert" = insert_of(sequence)
where (select split from dataset) = 'grouped'
group by 1
having one <> other;
