package queue

import (
	"time"

	"github.com/redis/go-redis/v9"
)

// ParseID is parseID.
func ParseID(id string) (run int64, delivery int, ok bool) { return parseID(id) }

// Lease is a member of asynq's set of leases.
func Lease(id string, until time.Time) redis.Z {
	return redis.Z{Score: float64(until.Unix()), Member: id}
}

// Ended is closed when a Server has ended, also one that Shutdown gave up on.
func Ended(s *Server) <-chan struct{} { return s.ended }

// Slots is slots.
func Slots(n int) (mixed, noFirstLoads, urgentOnly int) { return slots(n) }
