-- wrk: POST a body drawn uniformly from the lines of BODIES, or one with an entity drawn uniformly.
local bodies, headers = {}, {["content-type"] = "application/json"}
local key, entities, many = os.getenv("KEY"), tonumber(os.getenv("ENTITIES") or 0), tonumber(os.getenv("MANY") or 1)
if key then headers["authorization"] = "Bearer " .. key end
if os.getenv("BODIES") then
  for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
end
math.randomseed(os.time())

function request()
  local body
  if #bodies > 0 then
    body = bodies[math.random(#bodies)]
  elseif many == 1 then
    body = '{"use_case": "bench", "entity_id": ' .. math.random(entities) .. "}"
  else
    local found = {}
    for place = 1, many do found[place] = '{"entity_id": ' .. math.random(entities) .. "}" end
    body = '{"use_case": "bench", "entities": [' .. table.concat(found, ", ") .. "]}"
  end
  return wrk.format("POST", nil, headers, body)
end

if os.getenv("PAUSE_MS") then
  function delay() return tonumber(os.getenv("PAUSE_MS")) end
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format('{"requests": %d, "us": %d, "not_2xx": %d, "broken": %d, "p50_us": %d, "p99_us": %d}',
    summary.requests, summary.duration, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
