-- wrk: the requests of all users in turn, and at the end one line of JSON.
local users, requests, turn = 100, {}, 0

function init(args)
  local headers = { ["content-type"] = "application/json", ["Host"] = "localhost" }
  for _, header in ipairs(args) do
    local name, value = header:match("^([^:]+):%s*(.*)$")
    headers[name] = value
  end
  local body = os.getenv("BENCH_BODY") or '{"input": "Why is the sky blue?"}'
  local path = os.getenv("BENCH_PATH") or "/api/v1/generate/%d"
  for user = 1, users do
    requests[user] = wrk.format("POST", path:format(user), headers, body)
  end
end

function request()
  turn = turn % users + 1
  return requests[turn]
end

function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d, "timeouts": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status, errors.timeout))
end
