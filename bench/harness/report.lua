-- Has wrk say what it saw as one line of JSON.
function done(summary, latency, requests)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   io.write(string.format(
      '\n{"requests": %d, "seconds": %f, "bytes": %d, "errors": %d, "p99_ms": %f}\n',
      summary.requests, summary.duration / 1e6, summary.bytes, failed,
      latency:percentile(99) / 1e3))
end
