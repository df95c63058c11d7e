-- Takes from several limits in one step: from all of them, or, where one refuses, from none. Or settles what was taken from
-- them: costs are owed then whether there is room or not, and those below 0 are given back. The arithmetic is that of
-- sdk/abi/src/limit.rs; the time is this server's own.
--
-- KEYS: where each limit's state is. ARGV: `take` or `settle`; how many bursts of a rate may be owed; and for each limit `rate`,
-- cost, nanoseconds that one takes, burst; or `quota`, cost, count, and three ends of windows in seconds since the Unix epoch, the
-- earliest first: the window that ends next holds. Answers four numbers for each limit: 1 if it lets pass, what remains, nanoseconds until all is there again, and nanoseconds
-- until it would let pass, -1 for never.
--
-- A rate's state is the time until which all is paid for, in nanoseconds since the Unix epoch; a quota's is `END:USED`. Numbers
-- here have 53 bits, so times are worked with as a distance from now: exact up to 104 days.
local BILLION = 1000000000
local settles, most_bursts = ARGV[1] == 'settle', tonumber(ARGV[2])
local time = redis.call('TIME')
local now, fraction = tonumber(time[1]), tonumber(time[2]) * 1000

local function rate(state, cost, interval, burst)
  local capacity, debt = interval * burst, 0
  local seconds, nanos = string.match(state or '', '^(%d+)(%d%d%d%d%d%d%d%d%d)$')
  if seconds then
    debt = (tonumber(seconds) - now) * BILLION + tonumber(nanos) - fraction
    debt = math.max(0, math.min(debt, capacity * most_bursts))
  end
  local after = debt + interval * cost
  if settles then
    after = math.max(0, math.min(after, capacity * most_bursts))
  elseif after > capacity then
    local never = interval * cost > capacity
    return { 0, math.floor(math.max(0, capacity - debt) / interval), debt, never and -1 or after - capacity }
  end
  local total = fraction + after
  local rest = math.fmod(total, BILLION)
  local paid = string.format('%.0f%09.0f', now + (total - rest) / BILLION, rest)
  return { 1, math.floor(math.max(0, capacity - after) / interval), after, 0 }, paid, after
end

local function quota(state, cost, count, ends)
  local window, used = string.match(state or '', '^(%d+):(%d+)$')
  used = tonumber(window) == ends and tonumber(used) or 0
  local reset, left = (ends - now) * BILLION - fraction, math.max(0, count - used)
  if cost > left and not settles then
    return { 0, left, reset, cost > count and -1 or reset }
  end
  local after = math.max(0, used + cost)
  return { 1, math.max(0, count - after), reset, 0 }, string.format('%.0f:%.0f', ends, after), reset
end

local at = 3
local function number()
  at = at + 1
  return tonumber(ARGV[at - 1])
end

local limits, refused = {}, false
for place, key in ipairs(KEYS) do
  local limit = { key = key, state = redis.call('GET', key), kind = ARGV[at] }
  at = at + 1
  limit.cost = number()
  if limit.kind == 'rate' then
    limit.take, limit.first, limit.second = rate, number(), number()
  else
    limit.take, limit.first = quota, number()
    local ends = { number(), number(), number() }
    limit.second = now < ends[1] and ends[1] or now < ends[2] and ends[2] or ends[3]
  end
  limit.verdict, limit.after, limit.lasts = limit.take(limit.state, limit.cost, limit.first, limit.second)
  refused = refused or limit.verdict[1] == 0
  limits[place] = limit
end

local answer = {}
for _, limit in ipairs(limits) do
  local verdict = limit.verdict
  if refused then
    local untouched = limit.take(limit.state, 0, limit.first, limit.second)
    verdict[2], verdict[3] = untouched[2], untouched[3]
  elseif limit.cost ~= 0 then
    -- Kept for as long as it says something.
    redis.call('SET', limit.key, limit.after, 'PX', string.format('%.0f', math.ceil(limit.lasts / 1000000) + 1))
  end
  for _, value in ipairs(verdict) do
    answer[#answer + 1] = value
  end
end
return answer
