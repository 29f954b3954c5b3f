-- With split = grouped, equal and near-duplicate inserts are in one split of finetune.
select coalesce(leader, insert_of(sequence)) as leader, list(distinct finetune.split) as splits
from finetune
left join near_duplicates on near_duplicates."insert" = insert_of(sequence)
where (select split from dataset) = 'grouped'
group by 1
having count(distinct finetune.split) > 1;
