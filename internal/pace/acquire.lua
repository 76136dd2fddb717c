-- Grants one request, or says in microseconds how long to wait. KEYS: grants, pause, slots. ARGV: id, count and window of
-- the short limit, count and window of the long one, requests at once, life of a slot; a count of 0 is no limit. Times are
-- Redis' own, in microseconds, so that the clocks of workers do not matter.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local at_once, life = tonumber(ARGV[6]), tonumber(ARGV[7])
if at_once > 0 and redis.call('ZSCORE', KEYS[3], ARGV[1]) then
	return 0 -- the answer was lost, and the client asks again
end

-- Set back, or another server's, the clock would have the account wait as long as it is wrong. A burst is the smaller harm.
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
if newest and tonumber(newest) > now then
	redis.call('DEL', KEYS[1])
end

local pause = redis.call('PTTL', KEYS[2])
if pause > 0 then
	return pause * 1000
end

if at_once > 0 then
	redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
	if redis.call('ZCARD', KEYS[3]) >= at_once then
		return 50000 -- nobody knows when an answer comes
	end
end

local keep, wait = 0, 0
for i = 2, 4, 2 do
	local count, window = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
	if count > 0 then
		keep = math.max(keep, window)
		local before = redis.call('ZRANGE', KEYS[1], -count, -count, 'WITHSCORES')[2]
		if before then
			wait = math.max(wait, before + window - now)
		end
	end
end
if wait > 0 then
	return wait
end

if keep > 0 then
	redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - keep)
	redis.call('ZADD', KEYS[1], now, ARGV[1])
	redis.call('PEXPIRE', KEYS[1], math.ceil(keep / 1000))
end
if at_once > 0 then
	redis.call('ZADD', KEYS[3], now + life, ARGV[1])
	redis.call('PEXPIRE', KEYS[3], math.ceil(life / 1000))
end
return 0
