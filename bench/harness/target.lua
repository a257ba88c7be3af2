-- Has wrk ask for what its first argument names, as a proxy is asked: by a whole address.
function init(arguments)
   wrk.path = arguments[1]
end

dofile(debug.getinfo(1, "S").source:match("@(.*/)") .. "report.lua")
