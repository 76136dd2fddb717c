-- A role that goes with its link's own row, while a record still states the place, is asked about like what is missing.

-- +goose Up
ALTER TABLE contactsync.runs ADD COLUMN roles_lost bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN contactsync.runs.roles_lost IS 'Customer contacts that stay, and whose ERP role went with the link''s own row: not among deactivated.';
COMMENT ON COLUMN contactsync.hold_items.reason IS 'The inactive_reason it would get; role_gone: it stays active and loses its ERP role.';

-- +goose Down
SELECT 1;
