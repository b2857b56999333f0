-- Counts statuses; DELAY milliseconds between a connection's requests set the rate.
local threads = {}
function setup(thread)
  table.insert(threads, thread)
end
function init()
  answered, refused, other = 0, 0, 0
  wrk.method, wrk.body = "POST", os.getenv("BODY")
  wrk.headers["content-type"] = "application/json"
end
function delay()
  return tonumber(os.getenv("DELAY"))
end
function response(status)
  if status == 200 then answered = answered + 1
  elseif status == 503 then refused = refused + 1
  else other = other + 1 end
end
function done(summary)
  local thread = threads[1]
  io.write(string.format('{"answered": %d, "refused": %d, "other": %d, "microseconds": %d}\n',
    thread:get("answered"), thread:get("refused"), thread:get("other") + summary.errors.read + summary.errors.timeout,
    summary.duration))
end
