-- A contact whose record could not be read may state a place all the same.

-- +goose Up
ALTER TABLE contactsync.run_pages ADD COLUMN unread_contact_ids bigint[] NOT NULL DEFAULT '{}';
COMMENT ON COLUMN contactsync.run_pages.unread_contact_ids IS 'Contacts that were there and could not be read: of their places nothing goes.';

-- +goose Down
SELECT 1;
