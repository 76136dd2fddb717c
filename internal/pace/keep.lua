-- Keeps a place among the requests at once for as long again. KEYS: slots. ARGV: id, life in microseconds. 0: the place is lost.
local time = redis.call('TIME')
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
	return 0
end
redis.call('ZADD', KEYS[1], time[1] * 1000000 + time[2] + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], math.ceil(ARGV[2] / 1000))
return 1
