-- Requests for wrk, one after the other: `wrk -s wrk.lua URL -- KIND PATH KEY SIZE IDS TOKEN`.
--
-- KIND   post, get, mix (one POST to twenty GETs), or forgotten: a POST of ids forgotten before
-- PATH   of the collection
-- KEY    what the `Idempotency-Key` of each POST begins with; a counter makes it unique
-- SIZE   sample ids in a POST
-- IDS    a file with the ids of requests to GET, one a line
-- TOKEN  the bearer token

local SAMPLES = 1000000
local BODIES = 64
local FORGOTTEN = 5000 -- every two hundredth
local GETS_TO_ONE_POST = 20

local kind, path, key
local headers = {}
local bodies, wanted = {}, {}
local sent = 0

function init(args)
  kind, path, key = args[1], args[2], args[3]
  headers["Authorization"] = "Bearer " .. args[6]
  headers["Content-Type"] = "application/json"
  for i = 1, BODIES do
    bodies[i] = body(tonumber(args[4]))
  end
  for line in io.lines(args[5]) do
    wanted[#wanted + 1] = wrk.format("GET", path .. "/" .. line, headers)
  end
end

function any_sample()
  if kind == "forgotten" then
    return math.random(0, FORGOTTEN - 1) * SAMPLES / FORGOTTEN
  end
  return math.random(0, SAMPLES - 1)
end

function body(size)
  local ids = {}
  for i = 1, size do
    ids[i] = string.format('"sample-%08d"', any_sample())
  end
  return '{"model": "net", "sample_ids": [' .. table.concat(ids, ", ") .. "]}"
end

function request()
  sent = sent + 1
  if kind == "get" or (kind == "mix" and sent % (GETS_TO_ONE_POST + 1) ~= 0) then
    return wanted[math.random(#wanted)]
  end
  headers["Idempotency-Key"] = key .. "-" .. sent
  return wrk.format("POST", path, headers, bodies[math.random(BODIES)])
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "refused": %d, "broken": %d}',
    summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
