-- The own row of a contact's place is looked up before the place, or its role, goes.

-- +goose Up
ALTER TABLE contactsync.run_pages ADD COLUMN missing_link_ids bigint[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN contactsync.run_pages.missing_link_ids IS 'Customer contacts whose own row was looked up and not found.';

-- +goose Down
SELECT 1;
