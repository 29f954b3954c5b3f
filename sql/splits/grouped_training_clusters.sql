-- The clusters of training in random order.
select root, rows
from clusters
where split = 'train'
order by place, leader;
