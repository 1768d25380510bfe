-- The operation id of a claim, so that whoever repeats it gets the task that it holds.
ALTER TABLE tasks ADD COLUMN claim_op_id text COLLATE "C"; -- of the claim that holds it; NULL: none does, or it had none

CREATE UNIQUE INDEX tasks_claim_op ON tasks (scope, queue, claim_op_id) WHERE claim_op_id IS NOT NULL;
