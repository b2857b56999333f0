-- Sends the bodies of the file BODIES one after another: a repeated payload flatters forests.
local requests, position = {}, 0
function init()
  local headers = { ["content-type"] = "application/json" }
  for line in io.lines(os.getenv("BODIES")) do
    requests[#requests + 1] = wrk.format("POST", os.getenv("TARGET"), headers, line)
  end
end
function request()
  position = position % #requests + 1
  return requests[position]
end
function done(summary, latency)
  io.write(string.format(
    '{"requests": %d, "microseconds": %d, "errors": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.status + summary.errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
