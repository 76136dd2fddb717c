-- A run may end refused for a login that was replaced while it worked: that says nothing about the new one.

-- +goose Up
ALTER TABLE contactsync.credentials ADD COLUMN given bigint NOT NULL DEFAULT 1;
COMMENT ON COLUMN contactsync.credentials.given IS 'Rises each time a person gives a login; a renewed token leaves it.';

-- +goose Down
SELECT 1;
