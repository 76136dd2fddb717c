package postgres

import (
	"database/sql/driver"
	"encoding/binary"
)

// texts are a text[] in Postgres' binary form: with the binary parameters that open asks for, pq sends bytes as such. Quoting
// thousands of names takes longer here, and reading the quotes longer there.
type texts []string

// Value is the array as array_recv reads it: dimensions, whether there are nulls, type, length, first index, then each text.
// https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/adt/arrayfuncs.c
func (t texts) Value() (driver.Value, error) {
	const text = 25 // pg_type.oid
	size := 20
	for _, s := range t {
		size += 4 + len(s)
	}
	b := make([]byte, 0, size)
	word := func(n int) { b = binary.BigEndian.AppendUint32(b, uint32(n)) } //nolint:gosec // no message is so large
	dimensions := min(len(t), 1)
	word(dimensions)
	word(0)
	word(text)
	if dimensions == 0 {
		return b, nil
	}
	word(len(t))
	word(1)
	for _, s := range t {
		word(len(s))
		b = append(b, s...)
	}
	return b, nil
}
