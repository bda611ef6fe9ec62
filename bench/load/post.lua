-- wrk's part of small chats: POST its argument as JSON.
function init(arguments)
    wrk.method = "POST"
    wrk.body = arguments[1]
    wrk.headers["Content-Type"] = "application/json"
end
