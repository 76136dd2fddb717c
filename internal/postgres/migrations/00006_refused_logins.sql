-- Some ERPs lock a user after a few refused logins, so a refusal is remembered with the credentials it was for, whichever
-- program met it. And a certificate takes its administrators longer to replace than a token does.

-- +goose Up
ALTER TABLE contactsync.credentials
	ADD COLUMN refused_at   timestamptz,
	ADD COLUMN refused      text,
	ADD COLUMN refused_hint text,
	ADD COLUMN notice_days  integer NOT NULL DEFAULT 14;
COMMENT ON COLUMN contactsync.credentials.refused_at IS
	'The ERP refused this login then, and nobody tries it again until a person gives another one or asks for it; else NULL.';
COMMENT ON COLUMN contactsync.credentials.refused IS 'What the ERP answered, in a few words.';
COMMENT ON COLUMN contactsync.credentials.refused_hint IS 'What a person does about it.';
COMMENT ON COLUMN contactsync.credentials.notice_days IS 'So many days before ends_at people are told.';

-- +goose Down
SELECT 1;
