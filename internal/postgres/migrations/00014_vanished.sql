-- At each run's end is asked which contacts made in Centime are at customers that vanished.

-- +goose Up
CREATE INDEX customer_contacts_own ON contactsync.customer_contacts (tenant_id, connection_id) WHERE origin = 'centime';

-- +goose Down
SELECT 1;
