-- Whether a connection's customers state more than their own contacts: of most connections none does, and nothing is looked for. No connector
-- that came before this migration has such customers.

-- +goose Up
ALTER TABLE contactsync.connections ADD COLUMN states_others boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN contactsync.connections.states_others IS
	'A customer''s record has stated the place of a contact that is not its own. Until one does, the links at a page''s customers are not read.';
GRANT UPDATE (states_others) ON contactsync.connections TO contactsync_sync;

-- +goose Down
SELECT 1;
